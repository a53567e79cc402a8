"""What training is asked for, and what it gives: a recipe, a camera's task, an outcome. Knows values; not steps."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

from fed_lorac.runtime.normalization import CIFAR10, Normalization
from fed_lorac.runtime.precision import Precision
from fed_lorac.training.batches import Augment
from fed_lorac.training.objectives.guessed import Guessed

__all__ = ["KEPT_MIB", "Outcome", "Recipe", "Task"]

KEPT_MIB = 256
"""What a block may keep, where nothing else is said."""


@dataclass(frozen=True)
class Recipe:
    """How steps are taken; defaults are LoRA-C's (arXiv 2410.16954): SGD, decay on matrices, clipping at 5.

    `kept_bytes`: the most that a block keeps of what layers that are not trained make of its images, which changes no
    bit; 0: nothing.
    """

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    batch_size: int = 128
    augment: Augment = "crop_flip"
    precision: Precision = "fp32"
    prox_mu: float = 0.0
    shuffled: bool = True
    normalization: Normalization = CIFAR10
    kept_bytes: int = KEPT_MIB * 2**20


@dataclass(frozen=True, eq=False)
class Task:
    """One camera's share: its images, the labels that it has (`NO_LABEL` where it has none), how many steps it takes on
    them, and the stream it draws from."""

    images: UInt8[Tensor, "n h w 3"]
    labels: Int64[Tensor, " n"]
    steps: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Outcome:
    """What training did: images seen (with repeats), steps taken, mean loss over them, and what was guessed on the way,
    where the objective guesses."""

    images_seen: int
    steps: int
    mean_loss: float
    guessed: Guessed | None = None
