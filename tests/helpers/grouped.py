"""A small network of the convolutions that cameras' networks are made of: depthwise, grouped, of any kernel."""

import torch
from torch import Tensor, nn

from fed_lorac.seeds import torch_stream

__all__ = ["Mobile", "mobile"]


class Mobile(nn.Sequential):
    """A stem, a depthwise separable block, kernels that are not square, grouped 3x3 and 1x1 convolutions."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.Hardswish(),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),  # 3: depthwise
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 16, 1),  # 5: pointwise
            nn.ReLU6(),
            nn.Conv2d(16, 16, (1, 5), 1, (0, 2)),  # 7
            nn.Conv2d(16, 16, (3, 1), (2, 1), (2, 0), (2, 1), groups=16),  # 8: both
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, 1, 1, groups=4, bias=False),  # 10: grouped
            nn.BatchNorm2d(32),
            nn.Conv2d(32, 16, 1, groups=2),  # 12: grouped and pointwise
            nn.GELU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, num_classes),
        )


def mobile(num_classes: int = 10) -> Mobile:
    """With weights from a stream of its own, in eval mode, its batch norms not fresh."""
    model, draw = Mobile(num_classes), torch_stream(0, "mobile")
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.ndim)):
            _draw(tensor, draw)
    return model.eval()


def _draw(tensor: Tensor, draw: torch.Generator) -> None:
    tensor.uniform_(0.5, 1.5, generator=draw) if tensor.ndim == 1 else tensor.normal_(0, 0.3, generator=draw)
