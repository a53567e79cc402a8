"""The peers' network: the base with loralib's ConvLoRA. Knows layers; not images or frameworks."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import cache, lru_cache

import loralib
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fed_lorac.models import build
from peers.settings import Settings, settings_of_this_run

__all__ = ["base_network", "load", "network", "statistics", "trained"]


@lru_cache(maxsize=1)
def network() -> nn.Module:
    """The network of this process."""
    settings = settings_of_this_run()
    torch.set_num_threads(settings.threads)
    return base_network(settings)


def base_network(settings: Settings) -> nn.Module:
    """A network of its own, in training mode: a ConvLoRA in place of every convolution but the first, which is trained
    as it is, and so is the classifier's weight."""
    model = build(settings.model, num_classes=settings.classes)
    model.load_state_dict(load_file(settings.weights))
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of lora_A: alike in every process
        for name in convolutions[1:]:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, _adapted(model.get_submodule(name), settings))
    loralib.mark_only_lora_as_trainable(model)
    classifier = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    for name in (convolutions[0], classifier):
        model.get_submodule(name).weight.requires_grad_(True)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    return model.to(settings.device, memory_format=layout).train()  # type: ignore[call-overload,no-any-return]


def _adapted(conv: nn.Module, settings: Settings) -> nn.Module:
    assert isinstance(conv, nn.Conv2d)
    layer = loralib.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        r=settings.rank,
        lora_alpha=settings.alpha,
        stride=conv.stride,
        padding=conv.padding,
        bias=conv.bias is not None,
    )
    layer.conv.load_state_dict(conv.state_dict())
    return layer  # type: ignore[no-any-return]


def trained(model: nn.Module) -> OrderedDict[str, Tensor]:
    """What is averaged: lora_A, lora_B, the first convolution and the classifier's weight. Views, not copies."""
    return OrderedDict((name, p.detach()) for name, p in model.named_parameters() if p.requires_grad)


def statistics(model: nn.Module) -> OrderedDict[str, Tensor]:
    """What stays with the camera: batch norm's buffers. Views, not copies."""
    return OrderedDict(model.named_buffers())


def load(model: nn.Module, arrays: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> nn.Module:
    """The model with these parameters and a camera's own statistics, or the base's where it has none yet; in training
    mode, as a ConvLoRA that is merged would lose what is loaded."""
    model.train()
    model.load_state_dict({**(own or _statistics_of_base()), **arrays}, strict=False)
    return model


@cache
def _statistics_of_base() -> dict[str, Tensor]:
    """Those in the base's file; read once a process."""
    settings = settings_of_this_run()
    buffers = dict(build(settings.model, num_classes=settings.classes).named_buffers())
    return {name: tensor for name, tensor in load_file(settings.weights).items() if name in buffers}
