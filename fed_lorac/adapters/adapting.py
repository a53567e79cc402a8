"""A network that adapts to each batch that it is given, without labels, by one rate a tensor. Knows networks, batches
and a cameras' axis, where several networks are one; not who learns the rates, or how.

Each parameter tensor w, and each running mean and variance of a batch norm, has an adaptation direction h on a batch x:

    h = -d(mean entropy of the predictions on x)/dw,   h = (the batch's statistic) - (the network's own)

and goes alpha h before x is classified (Bao et al. 2023, arXiv 2310.18816, algorithm 1). The network's own
tensors stay. Gradients go to the rates through the classification, with h held fixed. A rate is kept as rho, alpha =
rho n^(-1/4) for a tensor of n numbers, so that a step of SGD moves alpha by its gradient over sqrt(n), as the authors'
release does. Where all rates are zero it is the plain network.

N networks side by side (`training.blocks`) are one whose tensors and rates have the cameras' axis in front. Entropies
are then summed over cameras, so that one backward pass gives every camera's own directions.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache, partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.adapters.branches import full_precision
from fed_lorac.adapters.strided import strides_unfolded
from fed_lorac.errors import FactorError
from fed_lorac.seeds import torch_stream

__all__ = ["RATES", "AdaptsToBatch", "give_rates", "rated"]

RATES = "adaptation_rates"
"""The parameter that a network is given: rho of each tensor of `rated`, (d,)."""

_STATISTICS = ("running_mean", "running_var")
_MET = 500  # images that a network whose rates are all zero is called with at a time

Directions = dict[str, Tensor]
"""Tensor -> h, of its shape, without a gradient."""


def rated(network: nn.Module) -> list[str]:
    """What has a rate, by name: every parameter, in the network's order; then each batch norm's running mean and
    variance, where it has a weight and bias through which they act."""
    own = [name for name, _ in network.named_parameters() if name != RATES]
    return own + [f"{name}.{one}" for name, _ in _norms(network) for one in _STATISTICS]


def give_rates(network: nn.Module, *, batch_images: int, online: bool) -> None:
    """Make a plain network one that adapts, in place, by rates of zero: same object, same layers, another class."""
    like, count = next(network.parameters()), len(rated(network))
    network.__class__ = _adapting(type(network))  # type: ignore[arg-type]  # a class, which has a hash
    network.register_parameter(RATES, nn.Parameter(torch.zeros(count, dtype=like.dtype, device=like.device)))
    vars(network).update(batch_images=batch_images, online=online)


def _norms(network: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    for name, norm in network.named_modules():
        if isinstance(norm, _BatchNorm) and norm.affine and norm.running_mean is not None:
            yield name, norm


class AdaptsToBatch(nn.Module):
    """Stands before a network's class, and adapts the network to the images that it is called with.

    More than `batch_images` of them are cut into batches of near equal size, in an order that their number alone
    decides, as images may come class by class. `online`: in eval mode each batch is met with the mean direction of all
    so far. While a batch norm learns from its input it is the plain network.
    """

    unadapted: ClassVar[type[nn.Module]]
    """The class that the network was of."""
    adaptation_rates: Tensor
    batch_images: int
    online: bool

    @property
    def count(self) -> int:
        """Networks side by side in the next forward, n."""
        return 1

    @property
    def one(self) -> nn.Module:
        """A network that has this one's layers by their names: itself, or the first of those side by side."""
        return self

    def extra_repr(self) -> str:
        """How it adapts: equals are known by it."""
        return f"batch_images={self.batch_images}, online={self.online}"

    def forward(self, images: Float[Tensor, "b n*3 h w"]) -> Float[Tensor, "b n*classes"]:
        """Logits of the network, adapted to these very images. FactorError where rates are to be learned while a batch
        norm is in training mode."""
        if isinstance(images, fx.Proxy):
            raise TypeError("it adapts to each batch")  # a trace would hold for rates of zero alone
        learns = torch.is_grad_enabled() and self.adaptation_rates.requires_grad
        if in_training := next((name for name, norm in _norms(self.one) if norm.training), ""):
            if not learns:
                return self.called({}, images)  # statistics of all of them
            raise FactorError(
                "Rates are learned from statistics that stay as they are, towards a batch's; batch norm "
                f"{in_training!r} is in training mode. Call its eval() first."
            )
        if not (learns or self.adaptation_rates.any()):
            return torch.cat([self.called({}, part) for part in images.split(_MET)])
        parts = -(-len(images) // self.batch_images)
        if parts == 1:
            return self._adapted_to(images, self.directions(images))
        order = torch.randperm(len(images), generator=torch_stream(0, "batches", len(images))).to(images.device)
        found = torch.cat(list(self._in_turn(images[part] for part in order.tensor_split(parts))))
        return found[order.argsort()]

    def _in_turn(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        mean: Directions = {}
        for count, images in enumerate(batches, 1):
            found = self.directions(images)
            if self.online and not self.training:
                mean = {name: mean[name].lerp(h, 1 / count) if name in mean else h for name, h in found.items()}
                found = mean
            yield self._adapted_to(images, found)

    def directions(self, images: Float[Tensor, "b n*3 h w"]) -> Directions:
        """h of each tensor that these images have one for, in the precision that it is kept in."""
        with ExitStack() as stack:
            for one in (torch.inference_mode(False), torch.enable_grad(), full_precision(images.device.type)):
                stack.enter_context(one)
            stack.enter_context(strides_unfolded(self))
            tensors = {n: p.detach().requires_grad_() for n, p in self.named_parameters() if n != RATES}
            seen = stack.enter_context(_Statistics(self))
            logits = self.called(tensors, images.clone() if images.is_inference() else images)
            each = logits.unflatten(1, (self.count, -1))
            entropies = -(each.softmax(2) * each.log_softmax(2)).sum(2).mean(0)
            slopes = torch.autograd.grad(entropies.sum(), list(tensors.values()), allow_unused=True)
        found = {name: -slope for name, slope in zip(tensors, slopes, strict=True) if slope is not None}
        return found | {name: self.towards(name, batch) for name, batch in seen.found.items()}

    def towards(self, name: str, batch: Float[Tensor, " n*channels"]) -> Tensor:
        """h of a running statistic, from the batch's."""
        return batch - self.get_buffer(name)

    def _adapted_to(self, images: Tensor, directions: Directions) -> Tensor:
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        moved = {name: own[name] for name in rated(self.one)}
        for (name, before), rho in zip(list(moved.items()), self.adaptation_rates.unbind(-1), strict=True):
            if (h := directions.get(name)) is not None:
                moved[name] = before + _step(rho, h)
        for name, norm in _norms(self.one):
            weight, bias, mean, variance = (f"{name}.{one}" for one in ("weight", "bias", *_STATISTICS))
            gain = moved[weight] * torch.rsqrt(moved.pop(variance).clamp(min=0) + norm.eps)
            # No gradient goes through a norm's own statistics: they stay, and its weight and bias make up for it.
            moved[bias] = moved[bias] + (own[mean] - moved.pop(mean)) * gain
            moved[weight] = gain * torch.sqrt(own[variance] + norm.eps)
        return self.called(moved, images)

    def called(self, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
        """What the plain network says with these tensors in the place of its own."""
        named = {f"network.{name}": tensor for name, tensor in tensors.items()}
        found: Tensor = functional_call(_Plainly(self), named, (images,))
        return found


def _step(rho: Tensor, h: Tensor) -> Tensor:
    """alpha h of a tensor, where both may have the cameras' axis in front."""
    alpha: Tensor = rho * (h.numel() // rho.numel()) ** -0.25
    if alpha.ndim:
        alpha = alpha.view(-1, *[1] * (h.ndim - 1))
    return alpha * h


class _Plainly(nn.Module):
    """A network that adapts, called as the plain one."""

    def __init__(self, network: AdaptsToBatch) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = super(AdaptsToBatch, self.network).forward(images)
        return found


class _Statistics:
    """While open, the mean and variance (unbiased) of what each batch norm is called with, by the name of its own;
    none of a single value a channel, which has no variance."""

    def __init__(self, network: AdaptsToBatch) -> None:
        self.found, self._network, self._hooks = Directions(), network, list[Any]()

    def __enter__(self) -> "_Statistics":
        names = [name for name, _ in _norms(self._network.one)]
        own = self._network.get_submodule
        self._hooks = [own(name).register_forward_pre_hook(partial(self._see, name)) for name in names]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see(self, name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        if x.numel() > x.shape[1]:
            mean, variance = x.new_zeros(2, x.shape[1])
            F.batch_norm(x, mean, variance, training=True, momentum=1.0)  # several times as fast as Tensor.var
            self.found |= {f"{name}.{one}": value for one, value in zip(_STATISTICS, (mean, variance), strict=True)}


@cache
def _adapting(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of a network of class `kind` that adapts."""
    return type(f"Adapting{kind.__name__}", (AdaptsToBatch, kind), {"unadapted": kind})
