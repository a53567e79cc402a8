"""Training a base network on the cloud's clean images. Knows models and data sets; not cameras, adapters or rounds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import nn

from fed_lorac.data.datasets import Dataset
from fed_lorac.data.splits import split_by_rank
from fed_lorac.errors import ConfigError
from fed_lorac.seeds import stream
from fed_lorac.training.accuracy import accuracy
from fed_lorac.training.batch_norm import check_cloud
from fed_lorac.training.loop import train, warm_cosine
from fed_lorac.training.recipe import Recipe, Task

__all__ = ["RECIPE", "OnStep", "Pretrained", "pretrain"]

OnStep = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Pretrained:
    """What a base was trained on and how well it does: on the images that were held out, or where none were, on the
    clean evaluation images."""

    images: int
    steps: int
    train_loss: float
    accuracy: float
    scored_on: int


RECIPE = Recipe(lr=0.2, nesterov=True)
"""SGD with Nesterov momentum, warm-up and cosine; the rest as LoRA-C's recipe."""


def pretrain(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    seed: int,
    recipe: Recipe = RECIPE,
    held_out: float = 0.0,
    on_step: OnStep = lambda step, steps, loss: None,
) -> Pretrained:
    """Train `model` in place on `dataset.cloud`; `on_step(step, steps, loss)` is called after every step.

    `held_out`: the share of each class, the last of its images, that is kept out of training and scored instead of the
    evaluation images, which are not looked at then. ConfigError where a batch is too small for batch norm, or the share
    leaves none to train on or to score.
    """
    taught, scored = _parts(dataset, held_out)
    images, labels = (torch.from_numpy(a[taught]) for a in (dataset.images, dataset.labels))
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
    test, test_labels = (torch.from_numpy(a[scored]) for a in (dataset.images, dataset.labels))
    score = accuracy(model, test, test_labels, normalization=recipe.normalization)
    return Pretrained(len(labels), steps, outcome.mean_loss, score, len(scored))


def _parts(dataset: Dataset, held_out: float) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
    """The images to train on, and those to score."""
    if not held_out:
        return dataset.cloud, dataset.evaluation
    parts = split_by_rank(dataset.labels[dataset.cloud], (1 - held_out, held_out))
    if not all(map(len, parts)):
        raise ConfigError(
            f"A share that is held out leaves images to train on and to score; {held_out:g} of "
            f"{len(dataset.cloud)} images makes {len(parts[0])} and {len(parts[1])}. Choose another share."
        )
    return dataset.cloud[parts[0]], dataset.cloud[parts[1]]
