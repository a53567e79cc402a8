"""Strided 1x1 convolutions of few channels, kept off a fault of oneDNN. Knows convolutions; not why they are trained.

oneDNN (3.13.3, in PyTorch 2.15.0) writes past the end of its scratch memory where it forms the weight gradient of such
a convolution on an x86 CPU: a crash, a hang or, silently, wrong numbers (docs/decisions/0001-strided-1x1-gradients.md).
A 1x1 kernel of stride s sees every s-th pixel and nothing else, so these pixels are taken first and convolved with
stride 1: the same sums, by another path.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["StridedConv2d", "strides_unfolded", "unstrided"]

_CHANNELS = 16  # a block of oneDNN's under AVX-512, and 8 under AVX2; a full one is safe


def unstrided(
    x: Float[Tensor, "n in h w"],
    weight: Float[Tensor, "out in_of_group k k"],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    groups: int = 1,
) -> tuple[Tensor, tuple[int, ...]]:
    """x and its stride; where oneDNN is at fault, the pixels of x that the kernel looks at, and stride 1."""
    if not _at_fault(x, weight, stride, padding, groups):
        return x, tuple(stride)
    return x[:, :, :: stride[0], :: stride[1]], (1, 1)


def _at_fault(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int] | str, groups: int) -> bool:
    """Whether a gradient of `weight` will be asked of the path that writes too far."""
    return (
        max(stride) > 1
        and groups == 1
        and weight.shape[1] < _CHANNELS
        and weight.shape[2:] == (1, 1)
        and (padding == "valid" or not any(padding))
        and x.ndim == 4
        and not (x.shape[2] % stride[0] or x.shape[3] % stride[1])
        and x.device.type == "cpu"
        and x.dtype != torch.float64  # which oneDNN has no part in
        and torch.is_grad_enabled()
        and weight.requires_grad
    )


def _conv_forward(conv: nn.Conv2d, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, _ = unstrided(input, weight, conv.stride, conv.padding, conv.groups)
    as_ever = x is input
    y: Tensor = nn.Conv2d._conv_forward(conv, x, weight, bias) if as_ever else F.conv2d(x, weight, bias)
    return y


class StridedConv2d(nn.Conv2d):
    """An nn.Conv2d that `unstrided` looks after, whoever trains it."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _conv_forward(self, input, weight, bias)


@contextmanager
def strides_unfolded(network: nn.Module) -> Iterator[None]:
    """While open, `unstrided` looks after every nn.Conv2d of `network` too, but for one with a way of its own. Nothing
    is left of it afterwards."""
    convs = (m for m in network.modules() if isinstance(m, nn.Conv2d) and "_conv_forward" not in vars(m))
    plain = [m for m in convs if type(m)._conv_forward is nn.Conv2d._conv_forward and max(m.stride) > 1]
    for conv in plain:
        conv.__dict__["_conv_forward"] = partial(_conv_forward, conv)
    try:
        yield
    finally:
        for conv in plain:
            del conv.__dict__["_conv_forward"]
