"""The layer: a convolution whose frozen weight gets a delta from tensors beside it. Knows one convolution; not the
network around it, nor what the delta is a function of, which each method says."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from fed_lorac.adapters.strided import StridedConv2d

__all__ = ["AdaptedConv2d", "Affine", "Branch", "full_precision", "inject", "remove_branch", "scaled"]

Affine = tuple[Float[Tensor, " out"], Float[Tensor, " out"] | None]
"""Gain and shift of a convolution's output, channel by channel."""


@dataclass(frozen=True, eq=False)
class Branch:
    """What a convolution's branch starts with: its tensors by name (not "weight" or "bias"), and its settings.

    Both ends must be able to make the frozen ones again: they are not sent.
    """

    trained: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, float | str] = field(default_factory=dict)


class AdaptedConv2d(StridedConv2d):
    """An nn.Conv2d that adds `delta` to its frozen weight: y = conv(x, W + delta).

    Never constructed: `inject` turns an existing nn.Conv2d into a subclass of this one in place (its parent, hooks and
    parameters do not notice); `remove_branch` turns it back. Trained tensors are parameters, frozen ones buffers out of
    the state_dict; settings are plain attributes. `train()` and `eval()` alter no weight.
    """

    branch_trained: tuple[str, ...]
    branch_frozen: tuple[str, ...]
    branch_settings: tuple[str, ...]

    @abstractmethod
    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """What the weight gains, of the weight's shape or any view of it that is row-major, a function of the layer's
        tensors by name, each with any (cameras') axes in front, and of the weight's shape, never of its values.
        Autocast is off."""

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The delta as a state says it: dense, as "weight". A method of low rank says "A" and "B" instead, with
        B @ A * `Adapter.scale` the delta in a view of `algebra.factors`."""
        return {"weight": self.delta(own).reshape(own["weight"].shape)}

    def own(self) -> dict[str, Tensor]:
        """This layer's tensors by name."""
        return {k: t for k, t in (*self._parameters.items(), *self._buffers.items()) if t is not None}

    def effective_weight(self, own: Mapping[str, Tensor]) -> Tensor:
        """W + delta, (..., out, in, K, K), from the layer's tensors by name with any (cameras') axes in front."""
        with full_precision(self.weight.device.type):
            return own["weight"] + self.delta(own).reshape(own["weight"].shape)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution with its delta."""
        return self.convolve(input, None)

    def convolve(self, input: Tensor, affine: Affine | None) -> Tensor:
        """`forward`, then y * gain + shift where `affine` is (gain, shift), each (out,): a batch norm that is fixed."""
        return self._conv_forward(input, *scaled(self.effective_weight(self.own()), self.bias, affine))

    def extra_repr(self) -> str:
        """The convolution's settings, then its branch's: equal layers are known by them."""
        shapes = [f"{name}={tuple(self.get_parameter(name).shape)}" for name in self.branch_trained]
        settings = ((name, getattr(self, name)) for name in self.branch_settings)
        said = [f"{name}={value}" if isinstance(value, str) else f"{name}={value:g}" for name, value in settings]
        return ", ".join([super().extra_repr(), *shapes, *said])  # type: ignore[no-untyped-call]


def inject(conv: nn.Conv2d, kind: type[AdaptedConv2d], branch: Branch) -> None:
    """Give an nn.Conv2d a branch, in place: same object, same parent, same hooks, another class."""
    like = conv.weight
    conv.__class__ = kind
    layer = cast(AdaptedConv2d, conv)
    for name, tensor in branch.trained.items():
        own = tensor.to(device=like.device, dtype=like.dtype, copy=True)
        layer.register_parameter(name, nn.Parameter(own))
    for name, tensor in branch.frozen.items():
        layer.register_buffer(name, tensor.to(device=like.device, dtype=like.dtype), persistent=False)
    for name, value in branch.settings.items():
        setattr(layer, name, value)
    layer.branch_trained, layer.branch_frozen = tuple(branch.trained), tuple(branch.frozen)
    layer.branch_settings = tuple(branch.settings)


def remove_branch(layer: AdaptedConv2d) -> None:
    """Take the branch off again, dropping its tensors: what is left is the plain nn.Conv2d it was."""
    for name in (*layer.branch_trained, *layer.branch_frozen, *layer.branch_settings):
        delattr(layer, name)
    del layer.branch_trained, layer.branch_frozen, layer.branch_settings
    cast(nn.Module, layer).__class__ = nn.Conv2d


def scaled(
    weight: Float[Tensor, "out in k k"], bias: Float[Tensor, " out"] | None, affine: Affine | None
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of `conv(x, weight, bias) * gain + shift`, where `affine` is (gain, shift); None: as they are."""
    if affine is None:
        return weight, bias
    gain, shift = affine
    bias = shift if bias is None else bias * gain if shift is None else bias * gain + shift
    return weight * gain.view(-1, 1, 1, 1), bias


def full_precision(device: str) -> AbstractContextManager[object]:
    """Autocast off: a delta is computed in the precision that its tensors are kept in."""
    return torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()
