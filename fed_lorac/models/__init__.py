"""Base networks by name, and what a file says of the network that its weights are of. Knows layers; not adapters or
cameras."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fed_lorac.errors import ConfigError, one_line
from fed_lorac.models.cifar_resnet import WIDTH as CIFAR_WIDTH
from fed_lorac.models.stems import STEMS
from fed_lorac.registry import MODELS

__all__ = ["build", "check_outputs", "described", "said_settings"]


def build(name: str, *, num_classes: int = 10, generator: torch.Generator | None = None, **settings: Any) -> nn.Module:
    """The network `name` with fresh weights: built in (settings `width`, of which 0 is its own, `norm`, `shortcut`), a
    library's (`stem`), or somebody else's.

    The draw comes from `generator` (default: seed 0) and leaves PyTorch's global generator as it was. Raises
    `ConfigError` where there is no such network, or it keeps no contract.
    """
    MODELS.load(name)
    if (
        MODELS.is_of_library(name)
        and (odd := {**settings, "stem": settings.get("stem", STEMS[0])})
        and (odd.keys() != {"stem"} or odd["stem"] not in STEMS)
    ):
        raise ConfigError(
            f"A library's network has one setting, stem, which is {' or '.join(STEMS)}; {name} got {settings}. Use a "
            "CIFAR ResNet (resnet8 to resnet56) for another width, norm or shortcut."
        )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed every GPU's generator too.
        torch.default_generator.manual_seed(
            0 if generator is None else int(torch.randint(1 << 62, (1,), generator=generator))
        )
        network = MODELS.make(name, num_classes=num_classes, **settings)
    if not isinstance(network, nn.Module):
        raise MODELS.broken(name, f"it gives {type(network).__name__}")
    if lazy := next((key for key, tensor in network.state_dict(keep_vars=True).items() if is_lazy(tensor)), ""):
        raise MODELS.broken(
            name, f"{lazy} has no size and no value before the first images; give its layer the size it takes"
        )
    return network


def check_outputs(name: str, network: nn.Module, num_classes: int, image_size: int) -> None:
    """ConfigError where a network that is not built in does not give (N, classes) of images (N, 3, H, W)."""
    if name in MODELS.names:
        return
    was = network.training
    try:
        with torch.no_grad():
            found = network.eval()(torch.zeros(2, 3, image_size, image_size))
    except Exception as error:
        if MODELS.is_of_library(name):
            raise ConfigError(
                f"A network takes images of data.image_size pixels; {name} fails on {image_size}x{image_size}: "
                f"{one_line(error)}. Set another data.image_size, or another model.stem."
            ) from error
        raise MODELS.broken(name, f"images (2, 3, {image_size}, {image_size}) fail: {error}") from error
    finally:
        network.train(was)
    came = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    if came != (2, num_classes):
        raise MODELS.broken(
            name, f"images (2, 3, {image_size}, {image_size}) give {came}, and (2, {num_classes}) are due"
        )


def described(name: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """What a file of weights says of their network: its name and all its settings."""
    if MODELS.is_outside(name):
        return {"model": name, "model_settings": json.dumps(dict(settings), sort_keys=True)}
    if MODELS.is_of_library(name):
        return {"model": name, "stem": settings.get("stem", STEMS[0])}
    width = settings.get("width") or CIFAR_WIDTH
    rest = {"norm": "batch", "shortcut": "projection", **settings}
    return {"model": name, "width": str(width), "norm": rest["norm"], "shortcut": rest["shortcut"]}


def said_settings(said: Mapping[str, str]) -> dict[str, Any]:
    """The settings in what a file says, for `build`."""
    if "model_settings" in said:
        return dict(json.loads(said["model_settings"]))
    if MODELS.is_of_library(said["model"]):  # files of before there was a stem have that for small images
        return {"stem": said.get("stem", STEMS[0])}
    return {"width": int(said["width"]), "norm": said["norm"], "shortcut": said["shortcut"]}
