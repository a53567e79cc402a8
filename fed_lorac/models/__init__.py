"""Base networks by name, and where their weights come from. Knows layers and files; not adapters or cameras."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from fed_lorac.errors import ConfigError
from fed_lorac.models.cifar_resnet import CifarResNet
from fed_lorac.models.torchvision_resnet import TORCHVISION, torchvision_resnet

__all__ = ["MODELS", "build"]

MODELS: dict[str, tuple[int, Callable[..., nn.Module]]] = {
    **{f"resnet{depth}": (16, partial(CifarResNet, depth)) for depth in (8, 14, 20, 32, 56)},
    **{name: (64, partial(torchvision_resnet, name)) for name in TORCHVISION},
}
"""Name -> (its own width, its builder)."""


def build(
    name: str,
    *,
    num_classes: int = 10,
    width: int = 0,
    norm: str = "batch",
    shortcut: str = "projection",
    generator: torch.Generator | None = None,
) -> nn.Module:
    """The network `name` with fresh weights; `width` 0 is the network's own.

    The draw comes from `generator` (default: seed 0) and leaves PyTorch's global generator as it was.
    """
    if name not in MODELS:
        raise ConfigError(f"model.name is one of {', '.join(MODELS)}; got {name!r}.")
    own_width, make = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if generator is None else int(torch.randint(1 << 62, (1,), generator=generator)))
        return make(num_classes=num_classes, width=width or own_width, norm=norm, shortcut=shortcut)
