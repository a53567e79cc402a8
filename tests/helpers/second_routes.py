"""Second routes for what the product computes in its own way: PyTorch's optimizer groups, and a branch in two steps."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import two_step_kernels

__all__ = ["decayed_groups", "two_step"]


def decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The trainable parameters in two optimizer groups: decay on matrices, none on vectors."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def two_step(
    x: Tensor,
    A: Tensor,
    B: Tensor,
    weight_shape: Sequence[int],
    scale: float,
    *,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """The branch `conv(x, delta(A, B))` by the two-step form, zero padding: the pure twin of the layer's route."""
    inner, outer = two_step_kernels(A, B, weight_shape, groups)
    hidden = F.conv2d(x, inner, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return F.conv2d(hidden, outer, groups=groups) * scale
