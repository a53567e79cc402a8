"""A convolution whose gradient goes straight to low-rank factors. Knows tensors; not layers, networks or cameras.

With the weight W + B' A' (A' and B' as in `factors.two_step_kernels`) and G the gradient of that weight, the factors
need B'^T G and G A'^T only. Both are convolution gradients of thin tensors, K*R channels high,

    dA' = weight gradient of (x, h) with h = conv1x1(dy, B'^T),     dB' = dy x u with u = conv(x, A'),

so G, a third of a step's arithmetic, is never formed; forward and the input's gradient are the plain convolution's.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from fed_lorac.adapters.strided import unstrided

__all__ = ["thin_conv2d"]

_backward = torch.ops.aten.convolution_backward.default


def thin_conv2d(
    x: Float[Tensor, "n in h w"],
    weight: Float[Tensor, "out in k k"],
    bias: Float[Tensor, " out"] | None,
    inner: Float[Tensor, "q in k k"],
    outer: Float[Tensor, "out q 1 1"],
    *,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Float[Tensor, "n out i j"]:
    """`conv2d(x, weight, bias)`, where `weight` is taken to hold outer @ inner: x, inner and outer get its gradient.

    All of one dtype. Neither `weight` nor `bias` gets a gradient: frozen, but for what the factors make of them.
    """
    x, stride = unstrided(x, inner, stride, padding)
    y: Tensor = _Thin.apply(x, weight.detach(), bias, inner, outer, (list(stride), list(padding), list(dilation)))
    return y


class _Thin(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, inner: Tensor, outer: Tensor, how: Any
    ) -> Tensor:
        ctx.save_for_backward(x, weight, inner, outer)
        ctx.how = how
        return F.conv2d(x, weight, bias, *how)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inner, outer = ctx.saved_tensors
        dx = _gradient(dy, x, weight, ctx.how, 0) if ctx.needs_input_grad[0] else None
        d_inner = None  # a frozen A spares two convolutions
        if ctx.needs_input_grad[3]:
            d_inner = _gradient(F.conv2d(dy, outer.transpose(0, 1)), x, inner, ctx.how, 1)
        d_outer = _gradient(dy, F.conv2d(x, inner, None, *ctx.how), outer, ([1, 1], [0, 0], [1, 1]), 1)
        return dx, None, None, d_inner, d_outer, None


def _gradient(dy: Tensor, x: Tensor, weight: Tensor, how: tuple[list[int], ...], of: int) -> Tensor:
    """A convolution's gradient by its input (`of` 0) or its weight (1)."""
    found: Tensor = _backward(dy, x, weight, None, *how, False, [0, 0], 1, [of == 0, of == 1, False])[of]
    return found
