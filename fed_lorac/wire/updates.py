"""Updates in a message to a camera: one record a round. Knows Flower's records; not what an update holds."""

from flwr.app import RecordDict

from fed_lorac.wire.meter import read_frame

__all__ = ["read_updates", "update_key"]

_PREFIX = "update-"


def update_key(round: int) -> str:
    """The name of the record with this round's update; sorts by round."""
    return f"{_PREFIX}{round:06d}"


def read_updates(content: RecordDict) -> list[tuple[int, bytes]]:
    """Every update in a message as (round, frame); FrameError where its envelope is off."""
    return [
        (int(key.removeprefix(_PREFIX)), read_frame(record))
        for key, record in content.array_records.items()
        if key.startswith(_PREFIX)
    ]
