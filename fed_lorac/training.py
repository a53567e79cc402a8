"""Stochastic gradient descent on one set of images. Knows a model, a recipe and batches; not cameras or rounds."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fed_lorac.images import Augment, augmented, shuffled_batches, to_input
from fed_lorac.precision import Precision, autocast

__all__ = ["Outcome", "Recipe", "cosine", "decayed_groups", "train", "warm_cosine"]


@dataclass(frozen=True)
class Recipe:
    """How steps are taken; defaults are LoRA-C's (arXiv 2410.16954): SGD, decay on matrices, clipping at 5."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    batch_size: int = 128
    augment: Augment = "crop_flip"
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Outcome:
    """What training did: images seen (with repeats), steps taken, mean loss over them."""

    images_seen: int
    steps: int
    mean_loss: float


def cosine(step: int, steps: int) -> float:
    """The factor on the learning rate at `step` of `steps`: 1 falling to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def warm_cosine(step: int, steps: int, warm_share: float = 0.1) -> float:
    """A linear rise over the first `warm_share` of the steps, then `cosine` over the rest."""
    warm = max(1, round(warm_share * steps))
    return (step + 1) / warm if step < warm else cosine(step - warm, steps - warm)


def decayed_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The trainable parameters in two optimizer groups: decay on matrices, none on vectors."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    recipe: Recipe,
    steps: int,
    rng: np.random.Generator,
    lr_factor: Callable[[int, int], float] = lambda step, steps: 1.0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Outcome:
    """Take `steps` steps on uint8 images (N, H, W, 3) with int64 labels (N,), in shuffled epochs.

    `model` is used as it stands (its mode, its trainable parameters, its device) with a fresh SGD optimizer;
    `on_step(step, loss)` is called after every step.
    """
    device = next(model.parameters()).device
    groups = [g for g in decayed_groups(model, recipe.weight_decay) if g["params"]]
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    seen, losses = 0, 0.0
    for step, batch in zip(range(steps), _endless(len(labels), recipe.batch_size, rng), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * lr_factor(step, steps)
        x = to_input(augmented(images[batch], recipe.augment, rng), device)
        loss = _step(model, x, labels[batch].to(device), optimizer, recipe)
        seen, losses = seen + len(batch), losses + loss
        on_step(step, loss)
    return Outcome(seen, steps, losses / steps if steps else 0.0)


def _endless(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    while True:
        yield from shuffled_batches(count, batch_size, rng)


def _step(model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, recipe: Recipe) -> float:
    with autocast(recipe.precision, x.device):
        loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
    optimizer.step()
    return float(loss.detach())
