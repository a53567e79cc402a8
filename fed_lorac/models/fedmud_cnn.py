"""FedMUD's network for CIFAR-10: ten convolutions in five pairs, each pair at half the size of the one before. Knows
layers; not adapters, cameras or files.

Source: Li et al. 2025, arXiv 2505.23176, as its authors' release has it (github.com/Leopold1423/fedmud-icml25,
`model/cnn.py`, CNN_CIFAR): 4,719,328 parameters for ten classes, convolutions and classifier drawn from N(0, 0.01²).
"""

from torch import nn

__all__ = ["fedmud_cnn"]

_WIDTHS = (32, 64, 128, 256, 512)
_STD = 0.01


def fedmud_cnn(num_classes: int = 10) -> nn.Sequential:
    """Ten convolutions of 3x3, each with batch norm, and a classifier without bias; for 32x32 images.

    The draw is from PyTorch's global generator, as a network's own: see `fed_lorac.models.build`.
    """
    layers: list[nn.Module] = []
    for before, width in zip((3, *_WIDTHS), _WIDTHS, strict=False):
        layers += [*_unit(before, width), *_unit(width, width), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(_WIDTHS[-1], num_classes, bias=False))
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=_STD)
    return network


def _unit(before: int, width: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
