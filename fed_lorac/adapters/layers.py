"""The layer: a convolution that carries a LoRA-C branch. Knows one convolution; not the network around it.

Both exact routes live here. "dense" runs one convolution with W + delta W; "two-step" runs the frozen W as it is and
adds the branch `conv1x1(conv(x, A'), B')`, which spares the gradient of a dense weight. `routes.faster_route` picks.
Under bf16 autocast the dense route rounds W + delta W to bf16 (as full fine-tuning does to its W), the two-step route
rounds W and the factors apart.
"""

from contextlib import nullcontext
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from fed_lorac.adapters.factors import delta, two_step_kernels
from fed_lorac.adapters.routes import faster_route

__all__ = ["LoraConv2d", "RouteChoice", "dress", "undress"]

RouteChoice = Literal["auto", "dense", "two-step"]


class LoraConv2d(nn.Conv2d):
    """An nn.Conv2d with factors beside its frozen weight: y = conv(x, W + scale * reshape(B @ A)).

    Never constructed: `dress` turns an existing nn.Conv2d into one in place (its parent, hooks and parameters do not
    notice) and `undress` turns it back. `train()` and `eval()` alter no weight.
    """

    lora_A: nn.Parameter  # noqa: N815  (R, in*K), or kernel-wise (out, in, r, K)
    lora_B: nn.Parameter  # noqa: N815  (out*K, R), or kernel-wise (out, in, K, r)
    lora_scale: float  # alpha / r
    lora_route: RouteChoice

    def delta(self) -> Tensor:
        """The dense change of the weight, (out, in, K, K), differentiable by the factors, never in autocast's bf16."""
        device = self.weight.device.type
        full = torch.autocast(device, enabled=False) if is_autocast_available(device) else nullcontext()
        with full:
            change: Tensor = delta(self.lora_A, self.lora_B, self.weight.shape, self.lora_scale)
        return change

    def route(self) -> Literal["dense", "two-step"]:
        """The route the next forward takes: a fixed function of shapes, device type and whether gradients are on."""
        if self.lora_route != "auto":
            return self.lora_route
        if self.lora_A.ndim == 4 or not torch.is_grad_enabled():
            return "dense"  # kernel-wise has no two-step form; without a backward pass the branch spares nothing
        return faster_route(self.weight.shape, self.lora_A.shape[0], self.weight.device.type)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution with its change, by the route that the rule picks."""
        y: Tensor
        if self.route() == "dense":
            y = self._conv_forward(input, self.weight + self.delta(), self.bias)
            return y
        inner, outer = two_step_kernels(self.lora_A, self.lora_B, self.weight.shape)
        # _conv_forward brings this layer's stride, padding, dilation and padding mode to A' as well.
        branch = F.conv2d(self._conv_forward(input, inner, None), outer * self.lora_scale)
        y = self._conv_forward(input, self.weight, self.bias) + branch
        return y

    def extra_repr(self) -> str:
        """The convolution's settings, then its factors'."""
        return f"{super().extra_repr()}, A={tuple(self.lora_A.shape)}, scale={self.lora_scale:g}"  # type: ignore[no-untyped-call]


def dress(conv: nn.Conv2d, A: Tensor, B: Tensor, scale: float, route: RouteChoice = "auto") -> None:
    """Give an nn.Conv2d a branch, in place: same object, same parent, same hooks, another class."""
    conv.__class__ = LoraConv2d
    layer = cast(LoraConv2d, conv)
    like = conv.weight
    layer.lora_A = nn.Parameter(A.to(device=like.device, dtype=like.dtype))
    layer.lora_B = nn.Parameter(B.to(device=like.device, dtype=like.dtype))
    layer.lora_scale = scale
    layer.lora_route = route


def undress(layer: LoraConv2d) -> None:
    """Take the branch off again, dropping its factors: what is left is the plain nn.Conv2d it was."""
    del layer.lora_A, layer.lora_B, layer.lora_scale, layer.lora_route
    cast(nn.Module, layer).__class__ = nn.Conv2d
