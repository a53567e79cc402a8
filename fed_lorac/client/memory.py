"""What a camera keeps from round to round, as it stands in the records of its Flower node. Knows frames and Flower's
records; not networks, nor what the values mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fed_lorac.wire.billing import frame_record, read_frame
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import PERSONAL_KEY

__all__ = ["PARTS_KEY", "STATISTICS_KEY", "ClientState"]

STATISTICS_KEY = "statistics"
PARTS_KEY = "parts"
_RESIDUAL_KEY = "lost"
_KEYS = (STATISTICS_KEY, _RESIDUAL_KEY, PERSONAL_KEY, PARTS_KEY)
_MEMORY_KEY = "memory"

Tensors = Mapping[str, Tensor]


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
