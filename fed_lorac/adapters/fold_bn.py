"""Folding batch norm into convolutions: for good, in a copy for inference, or as long as a fixed one is in use. Knows
layers and what can be folded; not steps or data.

The rule. A batch norm is folded where an nn.Conv2d feeds it, in one place, whose output feeds nothing else, and where
it keeps running statistics. It becomes an nn.Identity and the convolution gains a bias. Both are of PyTorch's own types
exactly: a subclass may do more (timm's BatchNormAct2d holds an activation). What is hooked, or has a forward of its
own, or a tensor that is another layer's too, stays. Group norm takes its statistics from each image, so it cannot be
folded; neither can a batch norm that follows something other than a convolution (pre-activation networks).

While it is open, `fixed_norms_folded` does the same for batch norm in eval mode, which is y * gain + shift per channel:
behind a convolution that is the same convolution with its weight and bias scaled. No pass over the activations is left
of it, forward or backward, and none is needed for the gradient of a shift that is not trained. Equal to rounding; under
bf16 autocast it is the scaled weight and the shift that are rounded, instead of the norm's input. Where a norm's gain
is trained and its convolution is not, the norm stays: the gain's gradient would cost that of the whole weight.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fed_lorac.adapters.branches import AdaptedConv2d, scaled
from fed_lorac.adapters.dataflow import Feed, feeds
from fed_lorac.adapters.plain import altered, copied, ties
from fed_lorac.errors import FactorError

__all__ = ["Folding", "affine_of", "fixed_norms_folded", "fold_batch_norm", "folding", "folding_of"]

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Folding:
    """What folding does to each batch norm of a network: the convolution that it becomes part of, or why it stays."""

    folded: Mapping[str, str]  # batch norm -> convolution
    kept: Mapping[str, str]  # batch norm -> why

    def __str__(self) -> str:
        return f"folded {len(self.folded)}, kept {len(self.kept)}"


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A COPY of a plain network with batch norm folded, in eval mode: equal outputs to float32 rounding.

    It equals the original in EVAL mode (running statistics). What cannot be folded stays as it is: see `folding_of`.
    FactorError where torch.fx cannot trace the network.
    """
    folded = copied(model).eval()
    modules = dict(folded.named_modules())
    for norm_name, conv_name in folding(folded, feeds(folded)).folded.items():
        _fold_pair(modules[conv_name], modules[norm_name])
        parent, _, child = norm_name.rpartition(".")
        setattr(modules[parent], child, nn.Identity().eval())
    return folded


def folding_of(model: nn.Module) -> Folding:
    """Which batch norms `fold_batch_norm` folds, and why it leaves the others; the network stays as it is.

    FactorError where torch.fx cannot trace the network.
    """
    evaluated = copied(model).eval()
    return folding(evaluated, feeds(evaluated))


def folding(model: nn.Module, flow: Mapping[str, Feed], kinds: Collection[type[nn.Module]] = (nn.Conv2d,)) -> Folding:
    """The same for a network as it stands, its modes included, whose `flow` is `dataflow.feeds` of it.

    A convolution is of one of `kinds`.
    """
    modules, tied = dict(model.named_modules()), {name.rpartition(".")[0] for pair in ties(model) for name in pair}
    folded, kept = {}, {}
    for name, (conv, unfed) in flow.items():
        own = _why_kept(modules[name], name in tied, _NORMS, statistics=True)
        its = _why_kept(modules[conv], conv in tied, kinds) if conv else ""
        if why := (own and f"it {own}") or unfed or (its and f"its convolution {conv} {its}"):
            kept[name] = why
        else:
            folded[name] = conv
    return Folding(folded, kept)


def affine_of(norm: _BatchNorm, own: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Gain and shift of a batch norm in eval mode, y = x * gain + shift, from its tensors by name."""
    gain = torch.rsqrt(own["running_var"] + norm.eps)
    gain = own["weight"] * gain if "weight" in own else gain
    shift = -own["running_mean"] * gain
    return gain, own["bias"] + shift if "bias" in own else shift


def _why_kept(layer: nn.Module, tied: bool, kinds: Collection[type[nn.Module]], *, statistics: bool = False) -> str:
    """Why a layer is not folded; "" where it may be."""
    if type(layer) not in kinds:
        return f"is a {type(layer).__name__}, which may do more"
    if statistics and (layer.running_mean is None or layer.running_var is None):
        return "keeps no running statistics"
    if statistics and layer.training:
        return "is in training mode"
    return altered(layer) or ("shares its tensors with another layer" if tied else "")


def _fold_pair(conv: nn.Module, norm: nn.Module) -> None:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None and norm.running_var is not None
    trainable = conv.weight.requires_grad
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight, conv.bias = weight.requires_grad_(trainable), bias.requires_grad_(trainable)


# While a network is used as it is

Affine = Callable[[], tuple[Tensor, Tensor]]
_EVERY_MODULES = frozenset(vars(nn.Module()))
_traced: dict[Hashable, Mapping[str, Feed]] = {}


@contextmanager
def fixed_norms_folded(network: nn.Module, like: nn.Module) -> Iterator[None]:
    """While open, every batch norm of `network` in eval mode that directly follows a convolution is part of that.

    `like` is a plain network of the same layout: `network` itself, or one of those side by side in it.
    """
    changed = []
    try:
        for norm_name, conv_name in _pairs(like).items():
            conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
            if _gain_alone(conv, norm):
                continue
            conv.__dict__["forward"] = _forward(conv, _affine(norm))
            norm.__dict__["forward"] = _as_it_is
            changed += [conv, norm]
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _gain_alone(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether of the two the norm's gain is trained, and nothing of the convolution."""
    gain = norm._parameters.get("weight")
    return gain is not None and gain.requires_grad and not any(p.requires_grad for p in conv.parameters())


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _forward(conv: nn.Module, affine: Affine) -> Callable[[Tensor], Tensor]:
    if (convolve := getattr(conv, "convolve", None)) is not None:  # an adapted one, or one of several side by side
        return lambda x: convolve(x, affine())
    assert isinstance(conv, nn.Conv2d)
    return lambda x: conv._conv_forward(x, *scaled(conv.weight, conv.bias, affine()))


def _affine(norm: nn.Module) -> Affine:
    if (several := getattr(norm, "gain_and_shift", None)) is not None:  # of several networks side by side
        return cast(Affine, several)
    assert isinstance(norm, _BatchNorm)
    own = {**dict(norm.named_parameters()), **dict(norm.named_buffers())}
    if any(tensor.requires_grad for tensor in own.values()):
        return lambda: affine_of(norm, own)
    fixed = affine_of(norm, own)
    return lambda: fixed


def _pairs(model: nn.Module) -> Mapping[str, str]:
    """Batch norm in eval mode -> its convolution, by dataflow; none where the network cannot be traced."""
    if all(module.training for module in model.modules() if isinstance(module, _BatchNorm)):
        return {}
    adapted = {type(module) for module in model.modules() if isinstance(module, AdaptedConv2d)}
    return folding(model, _flow(model), {nn.Conv2d, *adapted}).folded


def _flow(model: nn.Module) -> Mapping[str, Feed]:
    """The dataflow; once for each layout, as tracing takes longer than a batch."""
    if any("forward" in vars(module) for module in model.modules()):
        return _followed(model)  # a layout does not say what it does
    key = tuple((name, type(m), m.training, altered(m), *_settings(m)) for name, m in model.named_modules())
    if key not in _traced:
        _traced[key] = _followed(model)
    return _traced[key]


def _followed(model: nn.Module) -> Mapping[str, Feed]:
    try:
        return feeds(model)
    except FactorError:
        return {}


def _settings(module: nn.Module) -> Iterator[Hashable]:
    yield from ((name, _told(value)) for name, value in vars(module).items() if name not in _EVERY_MODULES)


def _told(value: Any) -> Hashable:
    """A setting's value as something hashable: plain values themselves, of others the type."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        return tuple(_told(part) for part in value)
    if isinstance(value, dict):
        return tuple((str(key), _told(part)) for key, part in value.items())
    return cast(Hashable, type(value))
