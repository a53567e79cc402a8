"""Training a base network on the cloud's clean images. Knows models and data sets; not cameras, adapters or rounds."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fed_lorac.data.datasets import Dataset
from fed_lorac.seeds import stream
from fed_lorac.training.accuracy import accuracy
from fed_lorac.training.batch_norm import check_cloud
from fed_lorac.training.loop import Recipe, Task, train, warm_cosine

__all__ = ["RECIPE", "OnStep", "Pretrained", "pretrain"]

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Pretrained:
    """What a base was trained on and how well it does on the clean evaluation images."""

    images: int
    steps: int
    train_loss: float
    test_accuracy: float


RECIPE = Recipe(lr=0.2, nesterov=True)
"""SGD with Nesterov momentum, warm-up and cosine; the rest as LoRA-C's recipe."""


def pretrain(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    seed: int,
    recipe: Recipe = RECIPE,
    on_step: OnStep = lambda step, steps, loss: None,
) -> Pretrained:
    """Train `model` in place on `dataset.cloud`; `on_step(step, steps, loss)` is called after every step.

    ConfigError where a batch is too small for batch norm.
    """
    images, labels = (torch.from_numpy(a[dataset.cloud]) for a in (dataset.images, dataset.labels))
    check_cloud(len(labels), recipe.batch_size, images.shape[1], model)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    steps = epochs * -(-len(labels) // recipe.batch_size)
    (outcome,) = train(
        [model],
        [Task(images, labels, steps, stream(seed, "pretrain"))],
        recipe=recipe,
        lr_factor=warm_cosine,
        on_step=lambda step, loss: on_step(step, steps, loss),
    )
    model.eval()
    test, test_labels = (torch.from_numpy(a[dataset.evaluation]) for a in (dataset.images, dataset.labels))
    score = accuracy(model, test, test_labels, normalization=recipe.normalization)
    return Pretrained(len(labels), steps, outcome.mean_loss, score)
