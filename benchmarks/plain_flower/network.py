"""The plain arm's network and its loops: loralib's ConvLoRA, float32. Knows tensors; not Flower."""

from collections import OrderedDict
from functools import lru_cache

import loralib
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from fed_lorac.models import build
from plain_flower.settings import Images, Settings, settings_of_this_run

__all__ = ["accuracy", "base_network", "network", "reestimate", "statistics", "train", "trained"]

_BATCH = 125  # images at once where nothing is trained: in float32 a fifth faster than 250
_PADDING = 4


@lru_cache(maxsize=1)
def network() -> nn.Module:
    """The base with a ConvLoRA in place of every convolution but the first: one per worker process."""
    settings = settings_of_this_run()
    torch.set_num_threads(settings.threads)
    return base_network(settings)


def base_network(settings: Settings) -> nn.Module:
    """A network of its own; the first convolution and the classifier's weight are trained as they are."""
    model = build(settings.model, num_classes=settings.classes)
    model.load_state_dict(load_file(settings.weights))
    convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    for name in convolutions[1:]:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _adapted(model.get_submodule(name), settings))
    loralib.mark_only_lora_as_trainable(model)
    classifier = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    for name in (convolutions[0], classifier):
        model.get_submodule(name).weight.requires_grad_(True)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    return model.to(settings.device, memory_format=layout)  # type: ignore[call-overload,no-any-return]


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
    """What is averaged: lora_A, lora_B, the first convolution and the classifier's weight."""
    return OrderedDict((name, p.detach()) for name, p in model.named_parameters() if p.requires_grad)


def statistics(model: nn.Module) -> OrderedDict[str, Tensor]:
    """What stays with the camera: batch norm's buffers."""
    return OrderedDict(model.named_buffers())


def train(model: nn.Module, images: Images, settings: Settings, lr: float, generator: torch.Generator) -> float:
    """Epochs of SGD; returns the last loss."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    for _ in range(settings.epochs):
        order = torch.randperm(len(images.train), generator=generator)
        for batch in order.split(settings.batch_size):
            x = _augmented(images.train[batch], generator)
            loss = F.cross_entropy(model(x), images.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
    return float(loss.detach())


def _augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops out of the mirrored-border image, half of them flipped: the whole batch by one gather."""
    n, _, height, width = x.shape
    padded = F.pad(x, (_PADDING,) * 4, mode="reflect")
    top, left = torch.randint(0, 2 * _PADDING + 1, (2, n), generator=generator)
    rows, cols = top[:, None] + torch.arange(height), left[:, None] + torch.arange(width)
    flipped = torch.rand(n, generator=generator) < 0.5
    cols = torch.where(flipped[:, None], cols.flip(1), cols)
    rows, cols, each = rows.to(x.device), cols.to(x.device), torch.arange(n, device=x.device)
    picked = padded.permute(0, 2, 3, 1)[each[:, None, None], rows[:, :, None], cols[:, None, :]]
    return picked.permute(0, 3, 1, 2)


@torch.no_grad()
def reestimate(model: nn.Module, images: Tensor) -> None:
    """Batch norm's statistics as the mean over these images under this very model."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # type: ignore[assignment]  # None: the cumulative mean
    model.train()
    parts = -(-len(images) // _BATCH)
    for part in range(parts):
        model(images[part::parts])
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    """The share of the evaluation images that are classified right."""
    model.eval()
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(images.test.split(_BATCH), images.test_labels.split(_BATCH), strict=True)
    )
    model.train()
    return right / len(images.test)
