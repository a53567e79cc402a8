"""Mean teachers, and networks held elsewhere for a while. Knows networks side by side and random streams; not
images, labels or losses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fed_lorac.training.blocks import row_norms
from fed_lorac.training.blocks.layers import SideBatchNorm
from fed_lorac.training.objectives.objective import Learners

__all__ = ["Teachers"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Teachers:
    """Of the networks at work: their mean teachers, where they began, and a place a little uphill.

    A teacher begins each local update as the network does, at the global model (or the camera's own, under a strategy
    that sends nothing), and so does what a network is restored to: there is nothing to keep from round to round.
    """

    def __init__(self, learners: Learners) -> None:
        self._learners, self._side = learners, learners.side
        self._start: list[Tensor] | None = None
        self._teacher: list[Tensor] | None = None

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the networks at these places."""
        for kept in (self._start, self._teacher):
            if kept is not None:
                kept[:] = [t.index_select(0, torch.tensor(places, device=t.device)) for t in kept]

    def predict(self, x: Float[Tensor, "b n*3 h w"], *, taught: bool) -> Float[Tensor, "b n classes"]:
        """What the teachers say, or the networks themselves, without a gradient; no statistics move."""
        with torch.no_grad(), _statistics_kept(self._side.network):
            if not taught:
                return self._learners.logits(x)
            with self._holding(self._taught()):
                return self._learners.logits(x)

    @contextmanager
    def uphill(self, loss: Tensor, radius: float) -> Iterator[None]:
        """While open, each network's trained tensors w are at w + radius * g / ||g||, g being its loss's gradient:
        where sharpness-aware minimisation (arXiv 2010.01412, equation 2) takes its own. No statistics move."""
        found = torch.autograd.grad(loss, self._side.parameters, allow_unused=True)
        pairs = zip(self._side.parameters, found, strict=True)
        grads = self._side.rows([torch.zeros_like(p) if g is None else g for p, g in pairs])
        size = radius / row_norms(grads).clamp_min(1e-12)
        moved = [(w + g * size.view(-1, *[1] * (g.ndim - 1))).to(w) for w, g in zip(self._now(), grads, strict=True)]
        with _statistics_kept(self._side.network), self._holding(moved):
            yield

    @contextmanager
    def aside(self, direction: Sequence[Tensor], by: float, *, traceless: bool) -> Iterator[None]:
        """While open, each network's trained tensors w are at w + by * z, z of one network's shapes; where it is
        `traceless`, no statistics move."""
        moved = [w + by * z for w, z in zip(self._now(), direction, strict=True)]
        with _statistics_kept(self._side.network) if traceless else nullcontext(), self._holding(moved):
            yield

    def move(self, decay: float) -> None:
        """teacher <- decay teacher + (1 - decay) network: call it after each step."""
        torch._foreach_lerp_(self._taught(), self._now(), 1 - decay)

    def begin(self, *, teacher: bool = False, start: bool = False) -> None:
        """Keep the networks as they are now, before the first step: for a teacher, or to be restored."""
        self._teacher = [t.clone() for t in self._now()] if teacher else None
        self._start = [t.clone() for t in self._now()] if start else None

    def restore(self, share: float) -> None:
        """Put a drawn share of every network's trained numbers back to where the local update began (CoTTA, arXiv
        2203.13591, equations 7 and 8)."""
        if not share:
            return
        assert self._start is not None
        for place, camera in enumerate(self._learners.live):
            for now, start in zip(self._now(), self._start, strict=True):
                drawn = self._learners.rngs[camera].random(now[place].numel(), np.float32) < share
                back = torch.from_numpy(drawn).view(now[place].shape).to(now.device)
                now[place] = torch.where(back, start[place], now[place])

    def _now(self) -> list[Tensor]:
        return [tensor for tensor, _ in self._side.trained()]

    def _taught(self) -> list[Tensor]:
        assert self._teacher is not None
        return self._teacher

    @contextmanager
    def _holding(self, rows: Sequence[Tensor]) -> Iterator[None]:
        before = self._side.swap(rows)
        try:
            yield
        finally:
            self._side.swap(before)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """While open, batches are normalised as ever, and leave no trace in any running statistics."""
    norms = [m for m in network.modules() if isinstance(m, _NormBase | SideBatchNorm) and m.training]
    kept = [(norm, name, own) for norm in norms for name in _STATISTICS if (own := norm._buffers.get(name)) is not None]
    for norm, name, own in kept:
        norm._buffers[name] = own.clone()  # not in place: a gradient that is still to come needs what it saw
    try:
        yield
    finally:
        for norm, name, own in kept:
            norm._buffers[name] = own
