"""What a camera remembers from message to message, in its node's records. Knows Flower's records and frames; not what
cameras do, nor rounds.

Of its own a camera remembers little: the round it has folded up to, its batch-norm statistics, under error feedback
what its codec left out, and under some strategies a part of the network that others do not share. The running base is
the same for all who have folded as much (`bases`).
"""

from collections.abc import Mapping

from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fed_lorac.wire.billing import frame_record, read_frame
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import PERSONAL_KEY

__all__ = ["LOST_KEY", "STATISTICS_KEY", "folded_round", "packed", "personal_frame", "recalled", "remembered"]

STATISTICS_KEY = "statistics"
LOST_KEY = "lost"
_MEMORY_KEY = "memory"

Tensors = Mapping[str, Tensor]


def folded_round(state: RecordDict) -> int:
    """The last round that a node has folded, out of its memory."""
    memory = state.config_records.get(_MEMORY_KEY)
    return int(memory["folded-round"]) if memory else 0  # type: ignore[arg-type]


def recalled(state: RecordDict, key: str = STATISTICS_KEY) -> Tensors:
    """A camera's statistics, or under another key what else is its own, out of its node's memory."""
    kept = state.array_records.get(key)
    return decode(read_frame(kept), base="") if kept else {}


def personal_frame(*places: RecordDict) -> bytes:
    """The part of the network that is the camera's own, as the frame it came in, from the first place that has it;
    empty: none has."""
    found = next((place.array_records[PERSONAL_KEY] for place in places if PERSONAL_KEY in place.array_records), None)
    return b"" if found is None else read_frame(found)


def remembered(
    before: RecordDict,
    folded_round: int,
    statistics: Tensors | None,
    lost: Tensors | None = None,
    *,
    own: bytes = b"",
    told: RecordDict | None = None,
) -> RecordDict:
    """What a node keeps from now on, as the functions above read it; None: what it kept before.

    Its own part of the network is what the camera made of it (`own`), else what it was told, else what it had.
    """
    state = RecordDict({_MEMORY_KEY: ConfigRecord({"folded-round": folded_round})})
    for key, new in ((STATISTICS_KEY, statistics), (LOST_KEY, lost)):
        if kept := before.array_records.get(key) if new is None else new and packed(new):
            state[key] = kept
    places = (place for place in (told, before) if place is not None and PERSONAL_KEY in place.array_records)
    if kept := frame_record(own) if own else next((place.array_records[PERSONAL_KEY] for place in places), None):
        state[PERSONAL_KEY] = kept
    return state


def packed(tensors: Tensors) -> ArrayRecord:
    """Tensors as one frame: every array of a record takes half a kilobyte of objects, whatever is in it."""
    return frame_record(encode(tensors, dtype="fp32", base=""))
