"""The layer: a convolution that carries a LoRA-C branch. Knows one convolution; not the network around it.

The exact routes live here. "dense" runs one convolution with W + delta W; "thin" runs the same forward, and takes its
gradient straight to the factors (`thin`), so that no dense weight's gradient is formed; `routes.faster_route` picks
between these two. "two-step" runs the frozen W as it is and adds the branch `conv1x1(conv(x, A'), B')`; it spares that
gradient too, at more passes over the activations, and is there to compare with. Under bf16 autocast dense and thin
round W + delta W to bf16 (as full fine-tuning does to its W), the two-step route rounds W and the factors apart.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from fed_lorac.adapters.algebra.factors import delta, two_step_kernels
from fed_lorac.adapters.algebra.routes import faster_route
from fed_lorac.adapters.algebra.thin import thin_conv2d
from fed_lorac.adapters.strided import StridedConv2d

__all__ = ["LoraConv2d", "RouteChoice", "full_precision", "inject", "remove_branch", "scaled"]

Route = Literal["dense", "two-step", "thin"]
RouteChoice = Literal["auto", "dense", "two-step", "thin"]


class LoraConv2d(StridedConv2d):
    """An nn.Conv2d with factors beside its frozen weight: y = conv(x, W + scale * reshape(B @ A)).

    Never constructed: `inject` turns an existing nn.Conv2d into one in place (its parent, hooks and parameters do not
    notice) and `remove_branch` turns it back. `train()` and `eval()` alter no weight.
    """

    lora_A: nn.Parameter  # noqa: N815  (R, in*K), in the filter view (R, in*K*K), or kernel-wise (out, in, r, K)
    lora_B: nn.Parameter  # noqa: N815  (out*K, R), in the filter view (out, R), or kernel-wise (out, in, K, r)
    lora_scale: float  # alpha / r
    lora_route: RouteChoice

    def delta(self) -> Tensor:
        """The dense change of the weight, (out, in, K, K), differentiable by the factors, never in autocast's bf16."""
        with full_precision(self.weight.device.type):
            change: Tensor = delta(self.lora_A, self.lora_B, self.weight.shape, self.lora_scale)
        return change

    def effective_weight(self, own: Mapping[str, Tensor]) -> Tensor:
        """W + delta W, (..., out, in, K, K), from the layer's tensors by name with any (cameras') axes in front."""
        with full_precision(self.weight.device.type):
            change = (self.lora_scale * own["lora_B"]) @ own["lora_A"]
            return own["weight"] + change.reshape(own["weight"].shape)

    def route(self) -> Route:
        """The route the next forward takes: a fixed function of shapes, device type and whether gradients are on."""
        if self.lora_route != "auto":
            return self.lora_route
        if self.lora_A.ndim == 4 or not torch.is_grad_enabled():
            return "dense"  # kernel-wise has no thin form; without a backward pass there is nothing to spare
        runs = self.lora_B.shape[0] // self.out_channels  # K, and 1 in the filter view
        return faster_route(self.weight.shape, self.lora_A.shape[0], self.weight.device.type, runs=runs)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution with its change, by the route that the rule picks."""
        return self.convolve(input, None)

    def convolve(self, input: Tensor, affine: tuple[Tensor, Tensor] | None) -> Tensor:
        """`forward`, then y * gain + shift where `affine` is (gain, shift), each (out,): a batch norm that is fixed."""
        route = self.route() if self._is_plain(input, affine) or self.lora_route == "two-step" else "dense"
        weight, bias = scaled(self.weight if route == "two-step" else self.weight + self.delta(), self.bias, affine)
        if route == "dense":
            return self._conv_forward(input, weight, bias)
        inner, outer = two_step_kernels(self.lora_A, self.lora_B, self.weight.shape)
        outer, _ = scaled(outer * self.lora_scale, None, None if affine is None else (affine[0], None))
        if route == "two-step":
            # _conv_forward brings this layer's stride, padding, dilation and padding mode to A' as well.
            branch = F.conv2d(self._conv_forward(input, inner, None), outer)
            return self._conv_forward(input, weight, bias) + branch
        how = {"stride": self.stride, "padding": cast(tuple[int, ...], self.padding), "dilation": self.dilation}
        x, weight, inner, outer = (_as_autocast(t) for t in (input, weight, inner, outer))
        return thin_conv2d(x, weight, None if bias is None else _as_autocast(bias), inner, outer, **how)

    def _is_plain(self, input: Tensor, affine: tuple[Tensor, Tensor] | None) -> bool:
        """Whether the factors are all that is trained here, and the padding is PyTorch's plainest."""
        trained = [t for t in (self.weight, self.bias, *(affine or ())) if t is not None and t.requires_grad]
        return not trained and input.ndim == 4 and self.padding_mode == "zeros" and not isinstance(self.padding, str)

    def extra_repr(self) -> str:
        """The convolution's settings, then its factors'."""
        return f"{super().extra_repr()}, A={tuple(self.lora_A.shape)}, scale={self.lora_scale:g}"  # type: ignore[no-untyped-call]


def scaled(
    weight: Float[Tensor, "out in k k"],
    bias: Float[Tensor, " out"] | None,
    affine: tuple[Float[Tensor, " out"], Float[Tensor, " out"] | None] | None,
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of `conv(x, weight, bias) * gain + shift`, where `affine` is (gain, shift); None: as they are."""
    if affine is None:
        return weight, bias
    gain, shift = affine
    bias = shift if bias is None else bias * gain if shift is None else bias * gain + shift
    return weight * gain.view(-1, 1, 1, 1), bias


def _as_autocast(tensor: Tensor) -> Tensor:
    """In the dtype that autocast, where it is on, gives a convolution's arguments."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


def full_precision(device: str) -> AbstractContextManager[object]:
    """Autocast off: factors multiply in the precision they are kept in."""
    return torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()


def inject(conv: nn.Conv2d, A: Tensor, B: Tensor, scale: float, route: RouteChoice = "auto") -> None:
    """Give an nn.Conv2d a branch, in place: same object, same parent, same hooks, another class."""
    conv.__class__ = LoraConv2d
    layer = cast(LoraConv2d, conv)
    like = conv.weight
    layer.lora_A = nn.Parameter(A.to(device=like.device, dtype=like.dtype))
    layer.lora_B = nn.Parameter(B.to(device=like.device, dtype=like.dtype))
    layer.lora_scale = scale
    layer.lora_route = route


def remove_branch(layer: LoraConv2d) -> None:
    """Take the branch off again, dropping its factors: what is left is the plain nn.Conv2d it was."""
    del layer.lora_A, layer.lora_B, layer.lora_scale, layer.lora_route
    cast(nn.Module, layer).__class__ = nn.Conv2d
