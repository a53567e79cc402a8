"""The networks of a block as an objective may use them: as they are, as their mean teachers are, a little uphill. Knows
networks side by side and random streams; not images, labels or losses.

A teacher begins each local update as the network does, at the global model (or the camera's own, under a strategy that
sends nothing), and so does what a network is restored to: there is nothing to keep from round to round.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.training.blocks import Alone, Stack
from fed_lorac.training.blocks.layers import SideBatchNorm

__all__ = ["Learners"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Learners:
    """The networks at work, `side`, each with what objectives keep of it in this local update.

    `memory`: rows by name, one for each camera of the block, at work or not.
    """

    def __init__(self, side: Alone | Stack, rngs: Sequence[np.random.Generator]) -> None:
        self.side, self.memory = side, dict[str, Tensor]()
        self._rngs, self._live = rngs, list(range(len(rngs)))
        self._start: list[Tensor] | None = None
        self._teacher: list[Tensor] | None = None

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the networks at these places."""
        self._live = [self._live[place] for place in places]
        for kept in (self._start, self._teacher):
            if kept is not None:
                kept[:] = [t.index_select(0, torch.tensor(places, device=t.device)) for t in kept]

    def logits(self, x: Float[Tensor, "b n*3 h w"]) -> Float[Tensor, "b n classes"]:
        """What the networks say."""
        found: Tensor = self.side.network(x)
        return found.view(len(x), x.shape[1] // 3, -1)

    def predict(self, x: Float[Tensor, "b n*3 h w"], *, teacher: bool = False) -> Float[Tensor, "b n classes"]:
        """What the networks, or their teachers, say, without a gradient; no statistics move."""
        with torch.no_grad(), _statistics_kept(self.side.network):
            if not teacher:
                return self.logits(x)
            with self._holding(self._taught()):
                return self.logits(x)

    @contextmanager
    def uphill(self, loss: Tensor, radius: float) -> Iterator[None]:
        """While open, each network's trained tensors w are at w + radius * g / ||g||, g being its loss's gradient:
        where sharpness-aware minimisation (arXiv 2010.01412, equation 2) takes its own. No statistics move."""
        found = torch.autograd.grad(loss, self.side.parameters, allow_unused=True)
        pairs = zip(self.side.parameters, found, strict=True)
        grads = self.side.rows([torch.zeros_like(p) if g is None else g for p, g in pairs])
        each = torch.stack([torch.linalg.vector_norm(g, dim=tuple(range(1, g.ndim))) for g in grads])
        size = radius / torch.linalg.vector_norm(each, dim=0).clamp_min(1e-12)
        moved = [(w + g * size.view(-1, *[1] * (g.ndim - 1))).to(w) for w, g in zip(self._now(), grads, strict=True)]
        with _statistics_kept(self.side.network), self._holding(moved):
            yield

    def move_teacher(self, decay: float) -> None:
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
        for place, camera in enumerate(self._live):
            for now, start in zip(self._now(), self._start, strict=True):
                drawn = self._rngs[camera].random(now[place].numel(), np.float32) < share
                back = torch.from_numpy(drawn).view(now[place].shape).to(now.device)
                now[place] = torch.where(back, start[place], now[place])

    def _now(self) -> list[Tensor]:
        return [tensor for tensor, _ in self.side.trained()]

    def _taught(self) -> list[Tensor]:
        assert self._teacher is not None
        return self._teacher

    @contextmanager
    def _holding(self, rows: Sequence[Tensor]) -> Iterator[None]:
        before = self.side.swap(rows)
        try:
            yield
        finally:
            self.side.swap(before)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """While open, batches are normalised as ever, and leave no trace in any running statistics."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm | SideBatchNorm) and m.training]
    kept = [(norm, name, own) for norm in norms for name in _STATISTICS if (own := norm._buffers.get(name)) is not None]
    for norm, name, own in kept:
        norm._buffers[name] = own.clone()  # not in place: a gradient that is still to come needs what it saw
    try:
        yield
    finally:
        for norm, name, own in kept:
            norm._buffers[name] = own
