"""What a camera guessed in a local update, for whoever knows the truth. Knows predictions by image; not labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fed_lorac.training.objectives.objective import Guesses, Objective

__all__ = ["GuessLog", "Guessed"]


@dataclass(frozen=True, eq=False)
class Guessed:
    """One camera's guesses, m of them, step by step; an image that was seen twice is there twice.

    images: which of its images; predicted: the likeliest class before the step; targets: the class that it was drawn
    to; used: whether it took part. `collapsed`: the last pass over the images left the objective's bounds.
    """

    images: Int64[Tensor, " m"]
    predicted: Int64[Tensor, " m"]
    targets: Int64[Tensor, " m"]
    used: Bool[Tensor, " m"]
    collapsed: bool


class GuessLog:
    """Every camera's guesses as steps are taken."""

    def __init__(self, cameras: int) -> None:
        self._steps: list[list[tuple[Tensor, ...]]] = [[] for _ in range(cameras)]

    def add(self, cameras: Sequence[int], chosen: Sequence[Int64[Tensor, " b"]], guesses: Guesses) -> None:
        """A batch: which cameras', and which of their images."""
        p = guesses.predicted
        surprise = -(p * p.clamp_min(1e-12).log()).sum(-1)
        for place, (camera, images) in enumerate(zip(cameras, chosen, strict=True)):
            own = (p[:, place].argmax(-1), guesses.targets[:, place], guesses.used[:, place])
            self._steps[camera].append((images, *own, surprise[:, place].mean(), p[:, place].mean(0)))

    def of(self, camera: int, objective: Objective, last_pass: int) -> Guessed | None:
        """A camera's, where it has any; `last_pass`: the steps of one pass over its images."""
        if not (steps := self._steps[camera]):
            return None
        images, predicted, targets, used = (torch.cat(column).cpu() for column in list(zip(*steps, strict=True))[:4])
        entropy, shares = (torch.stack(column[-last_pass:]) for column in list(zip(*steps, strict=True))[4:])
        return Guessed(images, predicted, targets, used, objective.collapsed(_share(entropy, shares), shares.mean(0)))


def _share(entropy: Float[Tensor, " steps"], shares: Float[Tensor, "steps classes"]) -> float:
    """The mean entropy over the largest there can be."""
    return float(entropy.mean()) / math.log(shares.shape[-1])
