"""Another objective whose slope is told by forward passes alone, along directions that a network's adapter has drawn
(`adapters.along`). Knows networks side by side and losses; not adapters' states, labels or rounds.

Two-point estimates (SPSA, Spall 1992; MeZO, arXiv 2305.17333): g_j = (L(theta + mu z_j) - L(theta - mu z_j)) / (2 mu),
both on one batch. The gradient is taken to be sum_j g_j z_j over the directions of a step. It lies in their span, and
so does all that SGD makes of it: momentum, clipping and FedProx's pull multiply it and add it up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.adapters.along import DIRECTIONS_NOTE, Directions
from fed_lorac.errors import RunError
from fed_lorac.training.objectives.objective import Batch, Learners, Losses, Objective

__all__ = ["ForwardPasses"]

_TRIED = "directions tried"


@dataclass(frozen=True)
class ForwardPasses(Objective):
    """The objective `of`, by 2 `per_step` forward passes a step and none backward.

    Steps go through the directions in turn, `per_step` at a time. `smoothing` is mu: how far a network is moved to and
    fro, as a distance in its trained numbers. Losses are computed in the precision of the weights, never in bfloat16:
    a small difference of two needs the digits.
    """

    source = "MeZO, arXiv 2305.17333; SPSA, Spall 1992"

    of: Objective
    per_step: int
    smoothing: float

    @property
    def uses_labels(self) -> bool:  # type: ignore[override]
        """As the other."""
        return self.of.uses_labels

    def losses(self, batch: Batch) -> Losses:
        """The other's."""
        return self.of.losses(batch)

    @torch.no_grad()
    def gradients(self, batch: Batch) -> Losses:
        """Add each camera's estimate to its parameters' gradients. The losses are the mean of all passes; the first
        alone moves running statistics."""
        tried = batch.recall(_TRIED, 1)
        first, passes = int(tried[0]), list[Losses]()
        for place in range(first, first + self.per_step):
            z = _direction(batch, place)
            ahead = self._losses(batch, z, self.smoothing, traceless=place > first)
            behind = self._losses(batch, z, -self.smoothing, traceless=True)
            _add_gradient(batch, z, (ahead.each - behind.each) / (2 * self.smoothing))
            passes += [ahead, behind]
        batch.remember(_TRIED, tried + self.per_step)
        return Losses(torch.stack([one.each for one in passes]).mean(0), passes[0].guesses)

    def _losses(self, batch: Batch, z: Sequence[Tensor], by: float, *, traceless: bool) -> Losses:
        with batch.aside(z, by, traceless=traceless):
            return self.of.checked(batch)

    def begin(self, learners: Learners) -> None:
        """As the other."""
        self.of.begin(learners)

    def after_step(self, learners: Learners) -> None:
        """As the other."""
        self.of.after_step(learners)

    def refuses(self, batch_size: int) -> str | None:
        """As the other; and one whose losses hold part of what they are made of fixed, so that they are no slope."""
        if self.of.smooth:
            return self.of.refuses(batch_size)
        return (
            "Forward passes tell how a loss changes with the weights, so nothing in it may be held fixed, and no step "
            f"taken uphill; {type(self.of).__name__} has teachers, thresholds or such steps. Use labels, entropy, or "
            "mixed of them."
        )

    def collapsed(self, entropy: float, shares: Float[Tensor, " classes"]) -> bool:
        """As the other says."""
        return self.of.collapsed(entropy, shares)


def _direction(batch: Batch, place: int) -> list[Tensor]:
    """The direction of this place, in turn, a tensor for each trained parameter."""
    directions: Directions | None = getattr(batch.learners.side.network, DIRECTIONS_NOTE, None)
    if directions is None:
        raise RunError(
            "Forward passes are along directions that an adapter has drawn; this network has none. Attach "
            "fed_lorac.adapters.along.Along of the adapter."
        )
    like = batch.learners.side.parameters[0]
    return [part.to(like) for part in directions.one(place % directions.count).values()]


def _add_gradient(batch: Batch, z: Sequence[Tensor], slopes: Float[Tensor, " n"]) -> None:
    """Add each camera's slope times a direction to its gradient."""
    side, live = batch.learners.side, batch.learners.live
    places = [live.index(camera) for camera in batch.cameras]
    for p, part in zip(side.parameters, z, strict=True):
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        [rows] = side.rows([p.grad])
        rows[places] += slopes.to(part).view(-1, *[1] * part.ndim) * part
