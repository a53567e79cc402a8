"""How good a model is on one camera's images. Knows models and images; not rounds, bytes or Flower."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.adapters.adapting import AdaptsToBatch
from fed_lorac.adapters.fold_bn import fixed_norms_folded
from fed_lorac.runtime.normalization import CIFAR10, Normalization
from fed_lorac.runtime.precision import Precision
from fed_lorac.training.batches import autocast, to_input

__all__ = [
    "Statistics",
    "accuracy",
    "batch_norms",
    "has_batch_norm",
    "modes_kept",
    "reestimate_statistics",
    "statistics_of",
]

Statistics = Mapping[str, Tensor]
"""A camera's own batch norm: running means and variances by name; empty: the base's."""

_STATISTICS = ("running_mean", "running_var")

_BATCH = 250  # for statistics, which it is part of
_SCORED = 125  # for scores, which it changes by rounding at most: a quarter faster on a CPU than 250


def batch_norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every batch norm with its name, subclasses too, found by module type: by name one would miss `downsample.1`."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm))


def has_batch_norm(model: nn.Module) -> bool:
    """Whether there is anything that a camera can adapt without training."""
    return any(True for _ in batch_norms(model))


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    """Every batch norm's running mean and variance by name, as copies on the CPU."""
    found = {}
    for name, norm in batch_norms(model):
        for statistic in _STATISTICS:
            value = cast(Tensor | None, getattr(norm, statistic))
            if value is not None:
                found[f"{name}.{statistic}"] = value.detach().to("cpu", copy=True)
    return found


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards each module is in the mode that it was in: a norm may be in eval mode in a network that trains."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def reestimate_statistics(
    model: nn.Module,
    images: UInt8[Tensor, "n h w 3"],
    precision: Precision = "fp32",
    normalization: Normalization = CIFAR10,
) -> None:
    """Reset every batch norm and set its statistics to the cumulative mean over `images` under this very model.

    The zero-byte adaptation of Schneider et al. 2020 (arXiv 2006.16971) without the source prior. A network without
    batch norm stays as it is.
    """
    if not has_batch_norm(model):
        return
    device, momenta = next(model.parameters()).device, {name: norm.momentum for name, norm in batch_norms(model)}
    # Strided batches: of near equal size, so that images count alike, and of all classes where images come class by
    # class, or the spread between classes would be missing from every batch's variance.
    parts = max(1, -(-len(images) // _BATCH))
    with modes_kept(model), autocast(precision, device):
        model.eval()  # dropout and its like: the network is met as it is used
        try:
            for _, norm in batch_norms(model):
                norm.train()
                norm.reset_running_stats()  # type: ignore[operator]
                norm.momentum = None  # type: ignore[assignment]  # None: cumulative mean
            for part in range(parts):
                model(to_input(images[part::parts], device, normalization))
        finally:
            for name, norm in batch_norms(model):
                norm.momentum = momenta[name]


@torch.no_grad()
def accuracy(
    model: nn.Module,
    images: UInt8[Tensor, "n h w 3"],
    labels: Int64[Tensor, " n"],
    precision: Precision = "fp32",
    normalization: Normalization = CIFAR10,
) -> float:
    """The share of `images` whose largest logit is the label's, 0 to 1, in eval mode; modes are put back."""
    device = next(model.parameters()).device
    right, size = 0, len(images) if isinstance(model, AdaptsToBatch) else _SCORED  # which makes batches of its own
    with modes_kept(model):
        model.eval()
        with fixed_norms_folded(model, model), autocast(precision, device):
            for x, y in zip(images.split(size), labels.split(size), strict=True):
                right += int((model(to_input(x, device, normalization)).argmax(1).cpu() == y).sum())
    return right / len(labels)
