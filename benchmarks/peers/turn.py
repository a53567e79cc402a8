"""What a camera does when it is asked: train, or be measured. Knows tensors; not frameworks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peers.settings import Images, Settings, images_of

__all__ = ["SCORES", "augmented", "learning_rate", "measured", "sgd", "train"]

SCORES = ("source-weather", "source-clear", "accuracy-weather", "accuracy-clear")
_BATCH = 125  # images at once where nothing is trained: in float32 a fifth faster than 250
_PADDING = 4


def learning_rate(settings: Settings, number: int) -> float:
    """That of a round, counted from 1: half a cosine over the rounds."""
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (number - 1) / settings.rounds))


def sgd(parameters: list[Tensor], lr: float, settings: Settings) -> torch.optim.Optimizer:
    """A fresh optimizer."""
    return torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def _arithmetic(settings: Settings) -> torch.autocast:
    bf16 = settings.precision == "bf16"
    return torch.autocast(torch.device(settings.device).type, torch.bfloat16, enabled=bf16)


def train(model: nn.Module, images: Images, settings: Settings, lr: float, generator: torch.Generator) -> None:
    """Epochs of SGD."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = sgd(parameters, lr, settings)
    for _ in range(settings.epochs):
        order = torch.randperm(len(images.train), generator=generator)
        for batch in order.split(settings.batch_size):
            with _arithmetic(settings):
                scores = model(augmented(images.train[batch], generator))
                loss = F.cross_entropy(scores, images.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
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


def measured(model: nn.Module, camera: int, settings: Settings, *, baseline: bool) -> dict[str, float]:
    """What FleetGrid's cameras measure: in weather and in clear air, each under statistics of that sky; before, where a
    `baseline` is asked for, as the model comes. The weather's statistics are in the model afterwards."""
    found: dict[str, float] = {}
    if baseline:
        for sky in ("weather", "clear"):
            found[f"source-{sky}"] = _accuracy(model, images_of(camera, sky), settings)
    for sky in ("clear", "weather"):
        images = images_of(camera, sky)
        _reestimate(model, images.train, settings)
        found[f"accuracy-{sky}"] = _accuracy(model, images, settings)
    return found


@torch.no_grad()
def _reestimate(model: nn.Module, images: Tensor, settings: Settings) -> None:
    """Batch norm's statistics as the mean over these images under this very model."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # type: ignore[assignment]  # None: the cumulative mean
    model.train()
    parts = -(-len(images) // _BATCH)
    with _arithmetic(settings):
        for part in range(parts):
            model(images[part::parts])
    for norm in norms:
        norm.momentum = 0.1


@torch.no_grad()
def _accuracy(model: nn.Module, images: Images, settings: Settings) -> float:
    """The share of the evaluation images that are classified right."""
    model.eval()
    with _arithmetic(settings):
        right = sum(
            int((model(x).argmax(1) == y).sum())
            for x, y in zip(images.test.split(_BATCH), images.test_labels.split(_BATCH), strict=True)
        )
    model.train()
    return right / len(images.test)
