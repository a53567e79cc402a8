"""Strategies of one's own with options of one name and of another, a codec that cannot read what it writes, and an
objective that gives one number for all cameras."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from faulty_strategies import FirstTwo
from torch import Tensor

from fed_lorac.runtime.settings import setting
from fed_lorac.training.objectives.label_free import LabelFree
from fed_lorac.training.objectives.objective import Batch, Losses
from fed_lorac.wire.codecs.codecs import Codec


@dataclass(frozen=True)
class Slow(FirstTwo):
    """Has a step of one half."""

    step: float = setting(0.5, "a share", above=0)


@dataclass(frozen=True)
class Fast(FirstTwo):
    """Has a step of two, which is something else."""

    step: float = setting(2.0, "a server's learning rate", above=0)


@dataclass(frozen=True)
class Other(FirstTwo):
    """Has no step."""

    other: float = setting(1.0, "another setting", above=0)


@dataclass(frozen=True)
class OneNumber(LabelFree):
    """Averages over the cameras too."""

    source: ClassVar[str] = "nobody"

    def losses(self, batch: Batch) -> "Losses":
        p: Tensor = batch.logits.float().softmax(-1)
        return self.guessed(-p.max(-1).values.mean(), p)


def codec() -> Codec:
    """Four bytes a value, and no way back."""
    return Codec(
        name="torn",
        code=210,
        source="nobody",
        unbiased=True,
        overflow_at=2.0**127,
        size_bytes=lambda slot: 4 * slot.count,
        pack=lambda values, slot, rng: values.astype("<f4").tobytes(),
        unpack=lambda data, slot: np.full(slot.shape, 1 // 0, np.float32),
    )
