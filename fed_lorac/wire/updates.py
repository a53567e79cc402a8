"""Updates in a message to a camera: one record a round, or one whole base in their stead. Knows Flower's records and
rounds; not what an update holds."""

from collections.abc import Iterable, Iterator

from flwr.app import RecordDict
from torch import Tensor

from fed_lorac.wire.base_tags import global_fingerprint
from fed_lorac.wire.billing import read_frame
from fed_lorac.wire.frame import decode

__all__ = ["PERSONAL_KEY", "base_key", "read_base", "read_updates", "unfolded", "update_key"]

PERSONAL_KEY = "own"  # the record with the part of the network that is not everyone's
_PREFIX = "update-"
_BASE_PREFIX = "base-"


def update_key(round: int) -> str:
    """The name of the record with this round's update; sorts by round."""
    return f"{_PREFIX}{round:06d}"


def base_key(round: int) -> str:
    """The name of the record with the whole base after this round's update."""
    return f"{_BASE_PREFIX}{round:06d}"


def read_base(content: RecordDict) -> tuple[int, bytes] | None:
    """The whole base in a message as (round, frame), where there is one; FrameError where its envelope is off."""
    found = [key for key in content.array_records if key.startswith(_BASE_PREFIX)]
    return (int(found[-1].removeprefix(_BASE_PREFIX)), read_frame(content.array_records[found[-1]])) if found else None


def read_updates(content: RecordDict) -> list[tuple[int, bytes]]:
    """Every update in a message as (round, frame); FrameError where its envelope is off."""
    return [
        (int(key.removeprefix(_PREFIX)), read_frame(record))
        for key, record in content.array_records.items()
        if key.startswith(_PREFIX)
    ]


def unfolded(
    updates: Iterable[tuple[int, bytes]], base: str, folded_round: int
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(round, change) of every update after `folded_round`, in order, for a camera to fold one by one.

    An update that came before, because its confirmation was lost, is passed over: folding is idempotent.

    Args:
        updates: (round, frame) in any order, as from `read_updates`.
        base: fingerprint of the starting base.
        folded_round: the last round that this camera has folded, 0 at first.

    Raises:
        FrameError: a frame is not intact, or not for the base that the camera has by then.
    """
    for round, frame in sorted(updates):
        if round > folded_round:
            yield round, decode(frame, base=global_fingerprint(base, folded_round))
            folded_round = round
