"""What a camera goes on from: the global model, which is what a run's updates have made of its base model, and what is
its own, as it stands in the records of its Flower node. Knows networks, frames and Flower's records; not what cameras
do with them, nor rounds.

Whoever has folded the same updates has the same global model, so it is a value that a whole fleet shares, and what a
camera keeps of its own is little.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor, nn

from fed_lorac.adapters.deltas import as_folded, changed_names, fold, set_tensors
from fed_lorac.adapters.settled import NOTHING, Settled, settled_in, settled_state, settles, without_settled
from fed_lorac.client.agreement import frame_spec
from fed_lorac.experiment.adapters import candidates, settled_on
from fed_lorac.experiment.experiment import Experiment, to_delta
from fed_lorac.wire.billing import frame_record, read_frame
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import (
    PERSONAL_KEY,
    global_fingerprint,
    personal_fingerprint,
    read_updates,
    read_whole_model,
    unfolded,
    whole_fingerprint,
)

__all__ = [
    "PARTS_KEY",
    "STATISTICS_KEY",
    "ClientState",
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

STATISTICS_KEY = "statistics"
PARTS_KEY = "parts"
_RESIDUAL_KEY = "lost"
_KEYS = (STATISTICS_KEY, _RESIDUAL_KEY, PERSONAL_KEY, PARTS_KEY)
_MEMORY_KEY = "memory"

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
        if here.plan.settles and settles(update):
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


def _without_factors(
    experiment: Experiment, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors that change weights, and the averaged factors that live on in the adapter."""
    kept = {name for name in state if experiment.plan.updates == "factors" and name.endswith((".A", ".B"))}
    return {n: t for n, t in state.items() if n not in kept}, {n: t for n, t in state.items() if n in kept}


def _add_delta(experiment: Experiment, global_model: GlobalModel, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    base = experiment.base.tensors
    tensors = {name: global_model.tensors.get(name, base[name]).clone() for name in changed_names(delta)}
    fold(tensors, delta)
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
    """(round, delta, as far as it counts) of every (round, frame) that has one, in order; layers are chosen by now."""
    variances = dict(experiment.base.tensors)
    for round, update in unfolded(updates, experiment.base.fingerprint, 0, frame_spec(experiment).templates):
        if not settles(update):
            yield round, as_folded(variances, _delta(experiment, round, update))


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
        settled = settled_in(state, candidates(experiment)) if settles(state) else NOTHING
        global_model = GlobalModel(round, *_without_factors(experiment, without_settled(state)), settled)
    return fold_updates(experiment, global_model, updates)


def personal_parameters(experiment: Experiment, state: "ClientState") -> Mapping[str, Tensor]:
    """What of its adapter is a camera's own: what stays with it, and what it was sent that is no cluster's delta."""
    frames = filter(None, (b"" if experiment.plan.clustered else state.personal_frame, state.parts_frame))
    return {key: value for frame in frames for key, value in decode_personal(experiment, frame).items()}


def decode_personal(experiment: Experiment, frame: bytes) -> dict[str, Tensor]:
    """What such a frame holds: of a camera's adapter state, or its cluster's delta."""
    tag = personal_fingerprint(experiment.base.fingerprint)
    return decode(frame, base=tag, templates=frame_spec(experiment).templates)


def personal_delta(experiment: Experiment, state: "ClientState") -> Mapping[str, Tensor]:
    """What they do to the global model: a delta whose products are still to be scaled by the adapter."""
    personal = personal_parameters(experiment, state)
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

    def fold(self, updates: Iterable[tuple[int, bytes]]) -> None:
        """Fold those of these, (round, frame), that no message has brought."""
        self._latest = fold_updates(self._experiment, self._latest, updates)

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


@dataclass(frozen=True)
class ClientState:
    """A camera's state: the last round whose update is in its global model (0: none), and what is its own, packed.

    What is its own is kept as records, a frame in each, and unpacked when it is asked for: most messages need none of
    it, and cameras of one cluster share one record.
    """

    folded_round: int = 0
    records: Mapping[str, ArrayRecord] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, records: RecordDict) -> "ClientState":
        """The state in a node's records, or as much of it as a reply holds; a new camera's where they are empty."""
        memory, arrays = records.config_records.get(_MEMORY_KEY), records.array_records
        folded_round = int(memory["folded-round"]) if memory else 0  # type: ignore[arg-type]
        return cls(folded_round, {key: arrays[key] for key in _KEYS if key in arrays})

    def write(self) -> RecordDict:
        """The records that a node keeps: the inverse of `read`."""
        memory = ConfigRecord({"folded-round": self.folded_round})
        return RecordDict({_MEMORY_KEY: memory, **{key: self.records[key] for key in _KEYS if key in self.records}})

    @property
    def statistics(self) -> Tensors:
        """Its batch norm's running means and variances by name; empty: the base model's."""
        return self._unpacked(STATISTICS_KEY)

    @property
    def residual(self) -> Tensors:
        """Under error feedback, what its codec has left out of its frames so far, by tensor."""
        return self._unpacked(_RESIDUAL_KEY)

    @property
    def personal_frame(self) -> bytes:
        """Its personal parameters, which others do not share, or its cluster's delta, as a frame; empty: none."""
        return read_frame(self.records[PERSONAL_KEY]) if PERSONAL_KEY in self.records else b""

    @property
    def parts_frame(self) -> bytes:
        """Parts of its adapter that stay with it beside those that are sent, as a frame; empty: none."""
        return read_frame(self.records[PARTS_KEY]) if PARTS_KEY in self.records else b""

    def after(self, content: RecordDict, folded_round: int) -> "ClientState":
        """The state once the camera has folded the updates in a message, up to a round, and has taken over the personal
        parameters in it, if there are any."""
        personal = {key: record for key, record in content.array_records.items() if key == PERSONAL_KEY}
        return ClientState(folded_round, {**self.records, **personal})

    def with_statistics(self, statistics: Tensors) -> "ClientState":
        """The same with other batch-norm statistics."""
        return self._with(STATISTICS_KEY, _pack_tensors(statistics) if statistics else None)

    def with_residual(self, residual: Tensors) -> "ClientState":
        """The same with another residual."""
        return self._with(_RESIDUAL_KEY, _pack_tensors(residual) if residual else None)

    def with_personal(self, frame: bytes) -> "ClientState":
        """The same with other personal parameters."""
        return self._with(PERSONAL_KEY, frame_record(frame) if frame else None)

    def with_parts(self, frame: bytes) -> "ClientState":
        """The same with other parts that stay with it."""
        return self._with(PARTS_KEY, frame_record(frame))

    def _unpacked(self, key: str) -> Tensors:
        return decode(read_frame(self.records[key]), base="") if key in self.records else {}

    def _with(self, key: str, record: ArrayRecord | None) -> "ClientState":
        others = {other: kept for other, kept in self.records.items() if other != key}
        return replace(self, records=others if record is None else {**others, key: record})


def _pack_tensors(tensors: Tensors) -> ArrayRecord:
    """Tensors as one frame: every array of a record takes half a kilobyte of objects, whatever is in it."""
    return frame_record(encode(tensors, dtype="fp32", base=""))
