"""Running bases: what a run's updates have made of its starting base. Knows models and frames; not cameras or Flower.

Whoever has folded the same updates has the same base, so it is a value that a whole fleet shares, not a camera's own.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, nn

from fed_lorac.adapters.deltas import apply_changes, changed_names
from fed_lorac.config import names
from fed_lorac.experiment.experiment import Experiment, to_delta
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.wire.base_tags import global_fingerprint, personal_fingerprint, whole_fingerprint
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import unfolded

__all__ = [
    "GlobalModel",
    "carries_factors",
    "caught_up",
    "changes_of",
    "folded",
    "initial_state",
    "network_of_global_model",
    "personal_delta",
    "under",
    "whole_frame",
]


@dataclass(frozen=True, eq=False)
class GlobalModel:
    """The starting base after the update of `round` (0: none yet). The starting base itself is not part of it.

    `tensors` are those that updates have changed; `factors` the carried ones (strategy "factor-fedavg" only).
    """

    round: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Mapping[str, Tensor] = field(default_factory=dict)

    def fingerprint(self, starting: str) -> str:
        """Its identity, over a starting base of that fingerprint."""
        return global_fingerprint(starting, self.round)


def carries_factors(experiment: Experiment) -> bool:
    """Whether averaged factors live on unfolded: the naive strategy's way."""
    return experiment.config.strategy.name == "factor-fedavg"


def folded(experiment: Experiment, running: GlobalModel, updates: Iterable[tuple[int, bytes]]) -> GlobalModel:
    """`W <- W + D` for each (round, frame) after the running base's own, in order; that is left as it is.

    Raises FrameError or FactorError, where a frame is not intact or not for this base.
    """
    for round, update in changes_of(experiment, updates, running.round):
        carried = {name for name in update if carries_factors(experiment) and name.endswith((".A", ".B"))}
        change = {name: tensor for name, tensor in update.items() if name not in carried}
        factors = {**running.factors, **{name: update[name] for name in carried}}
        running = GlobalModel(round, _changed(experiment, running, change), factors)
    return running


def _changed(experiment: Experiment, running: GlobalModel, change: Mapping[str, Tensor]) -> dict[str, Tensor]:
    starting = named_tensors(experiment.base.model)
    tensors = {name: running.tensors.get(name, starting[name]).clone() for name in changed_names(change)}
    apply_changes(tensors, change, 1.0)
    return {**running.tensors, **tensors}


@lru_cache(maxsize=8)
def under(experiment: Experiment, running: GlobalModel, frame: bytes) -> GlobalModel:
    """The running base with a group's own change, a frame, added: what the group's cameras begin their turns from."""
    change = decode(frame, base=personal_fingerprint(experiment.base.fingerprint)) if frame else {}
    return GlobalModel(running.round, _changed(experiment, running, change), running.factors)


def changes_of(
    experiment: Experiment, updates: Iterable[tuple[int, bytes]], folded_round: int = 0
) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
    """(round, change) of every (round, frame) after `folded_round`, in order; what adapters expand is expanded."""
    states = experiment.config.strategy.name in names.SEND_STATES
    for round, update in unfolded(updates, experiment.base.fingerprint, folded_round):
        yield round, to_delta(experiment, round)(update) if states else update


def whole_frame(experiment: Experiment, running: GlobalModel) -> bytes:
    """All that updates have made of the starting base as one frame of float32: what a camera that missed much is sent.

    Values and not their change: a sum of changes would be rounded otherwise than folding them one by one, and whoever
    takes this over has bit for bit the base of those who folded.
    """
    tag = whole_fingerprint(experiment.base.fingerprint, running.round)
    return encode({**running.tensors, **running.factors}, dtype="fp32", base=tag)


def caught_up(
    experiment: Experiment, running: GlobalModel, whole: tuple[int, bytes] | None, updates: Iterable[tuple[int, bytes]]
) -> GlobalModel:
    """The running base after what a message holds: a whole base as (round, frame), which takes the place of an older
    one, and updates to fold. Raises as `folded`."""
    if whole is not None and whole[0] > running.round:
        running = _taken_over(experiment, *whole)
    return folded(experiment, running, updates)


def _taken_over(experiment: Experiment, round: int, frame: bytes) -> GlobalModel:
    state = decode(frame, base=whole_fingerprint(experiment.base.fingerprint, round))
    factors = {n: t for n, t in state.items() if carries_factors(experiment) and n.endswith((".A", ".B"))}
    return GlobalModel(round, {n: t for n, t in state.items() if n not in factors}, factors)


def personal_delta(experiment: Experiment, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What a camera's own adapter does to the running base, as a change whose products the adapter's scale is for."""
    return to_delta(experiment, 0)(own) if own else {}


def initial_state(own: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A fresh adapter's state with a camera's own put in, whose factors may have fewer rows: what they lack of A is as
    it was drawn, and of B zero."""
    found = dict(fresh)
    for key, value in own.items():
        rest = tuple(slice(size) for size in value.shape)
        found[key] = fresh[key].clone()
        found[key][rest] = value
    return found


def network_of_global_model(
    experiment: Experiment, running: GlobalModel, statistics: Mapping[str, Tensor]
) -> nn.Module:
    """The network with a camera's own batch-norm statistics, on the experiment's device; without carried factors."""
    model = copy.deepcopy(experiment.base.model)
    model.load_state_dict({**running.tensors, **statistics}, strict=False)
    return model.to(experiment.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
