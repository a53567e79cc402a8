"""torchvision's ResNets with the stem for 32x32 inputs. Knows layers; not adapters, cameras or files.

The 7x7 stride-2 stem becomes 3x3 stride 1, the max-pool goes.

Source: He et al. 2016, arXiv 1512.03385, with the stem of LoRA-C, arXiv 2410.16954, section V
"""

from functools import partial

from torch import nn

from fed_lorac.errors import ConfigError

__all__ = ["TORCHVISION", "WIDTH", "resnet18", "resnet34", "resnet50", "resnet101", "torchvision_resnet"]

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101")
"""Functions of `torchvision.models`, which takes a second to import: only who builds one waits for it."""

WIDTH = 64
"""Channels of the first stage."""


def torchvision_resnet(
    name: str, *, num_classes: int, width: int = 0, norm: str = "batch", shortcut: str = "projection"
) -> nn.Module:
    """torchvision's ResNet with a stem for 32x32 images.

    From scratch, ready for (N, 3, 32, 32); only torchvision's own width and norm exist.
    """
    if (width or WIDTH, norm, shortcut) != (WIDTH, "batch", "projection"):
        raise ConfigError(
            f"{name} is torchvision's: width 64, batch norm, projection shortcuts; "
            f"got width {width}, norm {norm!r}, shortcut {shortcut!r}. Use a CIFAR ResNet (resnet8 to resnet56)."
        )
    from torchvision import models  # noqa: PLC0415

    model: nn.Module = getattr(models, name)(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


resnet18, resnet34, resnet50, resnet101 = (partial(torchvision_resnet, name) for name in TORCHVISION)
