"""Running bases: what a run's updates have made of its starting base. Knows models and frames; not cameras or Flower.

Whoever has folded the same updates has the same base, so it is a value that a whole fleet shares, not a camera's own.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fed_lorac.adapters.changes import apply_changes, changed_names
from fed_lorac.running import named_tensors, running_fingerprint
from fed_lorac.site import Site
from fed_lorac.wire.updates import unfolded

__all__ = ["RunningBase", "carries_factors", "folded", "running_model"]


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


def running_model(site: Site, running: RunningBase, statistics: Mapping[str, Tensor]) -> nn.Module:
    """The network itself with a camera's own batch-norm statistics, on the site's device; carried factors left out."""
    model = copy.deepcopy(site.base.model)
    model.load_state_dict({**running.tensors, **statistics}, strict=False)
    return model.to(site.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
