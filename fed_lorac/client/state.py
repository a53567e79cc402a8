"""What a camera goes on from: the global model, which is what a run's updates have made of its base model, and how what
is its own comes on top. Knows networks, frames and Flower's messages; not what cameras do with them, nor rounds.

Whoever has folded the same updates has the same global model, so it is a value that a whole fleet shares, and what a
camera keeps of its own (`memory`) is little.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from flwr.app import Message
from torch import Tensor, nn

from fed_lorac.adapters.bases import BASIS_KEYS
from fed_lorac.adapters.choice import CHOICE_KEY
from fed_lorac.adapters.deltas import apply_delta, changed_names, set_tensors
from fed_lorac.adapters.settled import NOTHING, Settled, settled_in, settled_state, without_settled
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.memory import ClientState
from fed_lorac.experiment.adapters import candidates, settled_on
from fed_lorac.experiment.experiment import Experiment, to_delta
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import (
    global_fingerprint,
    personal_fingerprint,
    read_updates,
    read_whole_model,
    unfolded,
    whole_fingerprint,
)

__all__ = [
    "GlobalModel",
    "GlobalModels",
    "add_cluster_delta",
    "build_network",
    "catch_up",
    "cluster_delta",
    "decode_personal",
    "encode_global_model",
    "fold_updates",
    "personal_delta",
    "personal_parameters",
    "read_deltas",
]

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class GlobalModel:
    """The base model after the update of `round` (0: none yet). The base model itself is not part of it.

    `tensors` are those that updates have changed; `factors` those that live on in the adapter
    (strategy "factor-fedavg"); `settled` is what the server has settled of adapters, where it does.
    """

    round: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Mapping[str, Tensor] = field(default_factory=dict)
    settled: Settled = NOTHING

    def fingerprint(self, base: str) -> str:
        """Its identity, over a base model of that fingerprint."""
        return global_fingerprint(base, self.round)


def fold_updates(
    experiment: Experiment, global_model: GlobalModel, updates: Iterable[tuple[int, bytes]]
) -> GlobalModel:
    """`W <- W + D` for each (round, frame) after the global model's own round, in order; one that settles
    something says what the next adapters are. The argument stays as it is.

    Raises FrameError or FactorError, where a frame is not intact or not for this model.
    """
    base = experiment.base.fingerprint
    for round, frame in sorted(updates):
        if round <= global_model.round:  # it came before, and its confirmation was lost
            continue
        here = settled_on(experiment, global_model.settled)
        update = decode(frame, base=global_model.fingerprint(base), templates=frame_spec(here).templates)
        if _settles(update):
            settled = settled_in(update, candidates(experiment))
            global_model = replace(global_model, round=round, settled=settled)
            continue
        delta, factors = _without_factors(experiment, _delta(here, round, update))
        tensors = _add_delta(experiment, global_model, delta)
        global_model = replace(global_model, round=round, tensors=tensors, factors={**global_model.factors, **factors})
    return global_model


def _delta(experiment: Experiment, round: int, update: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """An update as a delta: an adapter's state is turned into one."""
    return to_delta(experiment, round)(update) if update and experiment.plan.updates == "state" else update


def _settles(update: Mapping[str, Tensor]) -> bool:
    """Whether an update, or a whole model, says that the server has settled something."""
    return any(name == CHOICE_KEY or name.endswith(BASIS_KEYS) for name in update)


def _without_factors(
    experiment: Experiment, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors that change weights, and the averaged factors that live on in the adapter."""
    kept = {name for name in state if experiment.plan.updates == "factors" and name.endswith((".A", ".B"))}
    return {n: t for n, t in state.items() if n not in kept}, {n: t for n, t in state.items() if n in kept}


def _add_delta(experiment: Experiment, global_model: GlobalModel, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    base = experiment.base.tensors
    tensors = {name: global_model.tensors.get(name, base[name]).clone() for name in changed_names(delta)}
    apply_delta(tensors, delta, 1.0)
    return {**global_model.tensors, **tensors}


@lru_cache(maxsize=8)
def add_cluster_delta(experiment: Experiment, global_model: GlobalModel, frame: bytes) -> GlobalModel:
    """The model that a cluster's cameras train: the global one and the cluster's delta, a frame."""
    return replace(global_model, tensors=_add_delta(experiment, global_model, cluster_delta(experiment, frame)))


def cluster_delta(experiment: Experiment, frame: bytes) -> Mapping[str, Tensor]:
    """A cluster's delta, from the frame that its cameras have: of a state that is over one basis in all rounds."""
    return _delta(experiment, 0, decode_personal(experiment, frame))


def read_deltas(
    experiment: Experiment, updates: Iterable[tuple[int, bytes]]
) -> Iterator[tuple[int, Mapping[str, Tensor]]]:
    """(round, delta) of every (round, frame) that has one, in order; the layers of the experiment's adapters are
    chosen."""
    for round, update in unfolded(updates, experiment.base.fingerprint, 0, frame_spec(experiment).templates):
        if not _settles(update):
            yield round, _delta(experiment, round, update)


def encode_global_model(experiment: Experiment, global_model: GlobalModel) -> bytes:
    """All tensors that updates have changed as one frame of float32: what a camera that missed much is sent.

    Values and not their delta: a sum of deltas would be rounded otherwise than folding them one by one, and whoever
    takes this over has bit for bit the model of those who folded.
    """
    tag, known = whole_fingerprint(experiment.base.fingerprint, global_model.round), frame_spec(experiment).templates
    settled = settled_state(global_model.settled, candidates(experiment)) if global_model.settled != NOTHING else {}
    state = {**global_model.tensors, **global_model.factors, **settled}
    return encode(state, dtype="fp32", base=tag, templates=known)


def catch_up(
    experiment: Experiment,
    global_model: GlobalModel,
    whole: tuple[int, bytes] | None,
    updates: Iterable[tuple[int, bytes]],
) -> GlobalModel:
    """The global model after what a message holds: a whole model as (round, frame), which replaces an older one, and
    updates to fold. Raises as `fold_updates`."""
    if whole is not None and whole[0] > global_model.round:
        round, frame = whole
        tag = whole_fingerprint(experiment.base.fingerprint, round)
        state = decode(frame, base=tag, templates=frame_spec(experiment).templates)
        settled = settled_in(state, candidates(experiment)) if _settles(state) else NOTHING
        global_model = GlobalModel(round, *_without_factors(experiment, without_settled(state)), settled)
    return fold_updates(experiment, global_model, updates)


def personal_parameters(experiment: Experiment, state: ClientState) -> Mapping[str, Tensor]:
    """What of its adapter is a camera's own: what stays with it, and what it was sent that is no cluster's delta."""
    sent = b"" if experiment.plan.clustered else state.personal_frame
    frames = filter(None, (sent, state.parts_frame))
    return {key: value for frame in frames for key, value in decode_personal(experiment, frame).items()}


def decode_personal(experiment: Experiment, frame: bytes) -> dict[str, Tensor]:
    """What such a frame holds: of a camera's adapter state, or its cluster's delta."""
    tag = personal_fingerprint(experiment.base.fingerprint)
    return decode(frame, base=tag, templates=frame_spec(experiment).templates)


def personal_delta(experiment: Experiment, personal: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What personal parameters do to the global model: a delta whose products are still to be scaled by the adapter."""
    return to_delta(experiment, 0)(personal) if personal else {}


def build_network(experiment: Experiment, global_model: GlobalModel, statistics: Mapping[str, Tensor]) -> nn.Module:
    """The network of a global model with a camera's batch-norm statistics, on the experiment's device; `factors` are
    not in it."""
    model = copy.deepcopy(experiment.base.model)
    set_tensors(model, {**global_model.tensors, **statistics})
    return model.to(experiment.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class GlobalModels:
    """The global model that messages lead to, folded once for the whole fleet."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._latest = experiment, GlobalModel()

    def restore(self, updates: Sequence[tuple[int, bytes]]) -> None:
        """Go on from the model that these (round, frame) lead to."""
        self._latest = fold_updates(self._experiment, GlobalModel(), updates)

    def after(self, messages: Sequence[Message]) -> GlobalModel:
        """The model of a camera that has folded all that is in `messages`."""
        contents = {id(message.content): message.content for message in messages}
        new = {
            round: frame
            for content in contents.values()
            for round, frame in read_updates(content)
            if round > self._latest.round
        }
        wholes = [whole for content in contents.values() if (whole := read_whole_model(content)) is not None]
        # Whole models of one round are equal; one comes without updates, and is needed where nobody was sent those.
        self._latest = catch_up(self._experiment, self._latest, max(wholes, default=None), new.items())
        return self._latest
