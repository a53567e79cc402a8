"""Running bases: what a run's updates have made of its starting base. Knows models and frames; not cameras or Flower.

Whoever has folded the same updates has the same base, so it is a value that a whole fleet shares, not a camera's own.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fed_lorac.adapters.changes import apply_changes, changed_names
from fed_lorac.running import named_tensors, running_fingerprint, whole_fingerprint
from fed_lorac.site import Site
from fed_lorac.wire.codec import decode, encode
from fed_lorac.wire.updates import unfolded

__all__ = ["RunningBase", "carries_factors", "caught_up", "folded", "running_model", "whole_frame"]


@dataclass(frozen=True, eq=False)
class RunningBase:
    """The starting base after the update of `round` (0: none yet). The starting base itself is not part of it.

    `tensors` are those that updates have changed; `factors` the carried ones (strategy "factors" only).
    """

    round: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Mapping[str, Tensor] = field(default_factory=dict)

    def fingerprint(self, starting: str) -> str:
        """Its identity, over a starting base of that fingerprint."""
        return running_fingerprint(starting, self.round)


def carries_factors(site: Site) -> bool:
    """Whether averaged factors live on unfolded: the naive strategy's way."""
    return site.config.strategy.name == "factors"


def folded(site: Site, running: RunningBase, updates: Iterable[tuple[int, bytes]]) -> RunningBase:
    """`W <- W + D` for each (round, frame) after the running base's own, in order; that is left as it is.

    Raises FrameError or FactorError, where a frame is not intact or not for this base.
    """
    starting = named_tensors(site.base.model)
    for round, update in unfolded(updates, site.base.fingerprint, running.round):
        carried = {name for name in update if carries_factors(site) and name.endswith((".A", ".B"))}
        change = {name: tensor for name, tensor in update.items() if name not in carried}
        tensors = {n: running.tensors.get(n, starting[n]).clone() for n in changed_names(change)}
        apply_changes(tensors, change, 1.0)
        factors = {**running.factors, **{name: update[name] for name in carried}}
        running = RunningBase(round, {**running.tensors, **tensors}, factors)
    return running


def whole_frame(site: Site, running: RunningBase) -> bytes:
    """All that updates have made of the starting base as one frame of float32: what a camera that missed much is sent.

    Values and not their change: a sum of changes would be rounded otherwise than folding them one by one, and whoever
    takes this over has bit for bit the base of those who folded.
    """
    tag = whole_fingerprint(site.base.fingerprint, running.round)
    return encode({**running.tensors, **running.factors}, dtype="fp32", base=tag)


def caught_up(
    site: Site, running: RunningBase, whole: tuple[int, bytes] | None, updates: Iterable[tuple[int, bytes]]
) -> RunningBase:
    """The running base after what a message holds: a whole base as (round, frame), which takes the place of an older
    one, and updates to fold. Raises as `folded`."""
    if whole is not None and whole[0] > running.round:
        running = _taken_over(site, *whole)
    return folded(site, running, updates)


def _taken_over(site: Site, round: int, frame: bytes) -> RunningBase:
    state = decode(frame, base=whole_fingerprint(site.base.fingerprint, round))
    factors = {n: t for n, t in state.items() if carries_factors(site) and n.endswith((".A", ".B"))}
    return RunningBase(round, {n: t for n, t in state.items() if n not in factors}, factors)


def running_model(site: Site, running: RunningBase, statistics: Mapping[str, Tensor]) -> nn.Module:
    """The network itself with a camera's own batch-norm statistics, on the site's device; carried factors left out."""
    model = copy.deepcopy(site.base.model)
    model.load_state_dict({**running.tensors, **statistics}, strict=False)
    return model.to(site.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
