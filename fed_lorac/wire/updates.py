"""Updates in a message to a camera, and which model each is for. Knows Flower's records and rounds; not what an update
holds.

A message has one record a round, or one whole model in their stead. Both ends of the radio fold `W_{t+1} = W_t + D_t`
(METHODS: "Federated algebra"). Their models are told apart by the fingerprint of the base model and the number of the
last folded round, never by a hash of folded floats, which may differ in the last bit between machines.
"""

from collections.abc import Iterable, Iterator, Sequence

from flwr.app import RecordDict
from torch import Tensor

from fed_lorac.wire.billing import read_frame
from fed_lorac.wire.frame import decode
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.template import Template

__all__ = [
    "PERSONAL_KEY",
    "global_fingerprint",
    "personal_fingerprint",
    "read_updates",
    "read_whole_model",
    "unfolded",
    "update_key",
    "whole_fingerprint",
    "whole_model_key",
]

PERSONAL_KEY = "own"  # the record with the part of the network that is not everyone's
_PREFIX = "update-"
_BASE_PREFIX = "base-"
_MOST_DIGITS = 12


def global_fingerprint(base: str, folded_round: int) -> str:
    """The identity of `base` after the update of round `folded_round` (0: none yet) was folded in."""
    return f"{base}@{folded_round}"


def whole_fingerprint(base: str, folded_round: int) -> str:
    """The same for a frame that holds that base itself, not a change of it."""
    return f"{base}=@{folded_round}"


def personal_fingerprint(base: str) -> str:
    """The same for a frame that holds what one camera has beside that base, whatever was folded into it."""
    return f"{base}~"


def update_key(round: int) -> str:
    """The name of the record with this round's update; sorts by round."""
    return f"{_PREFIX}{round:06d}"


def whole_model_key(round: int) -> str:
    """The name of the record with the whole model after this round's update."""
    return f"{_BASE_PREFIX}{round:06d}"


def read_whole_model(content: RecordDict) -> tuple[int, bytes] | None:
    """The whole model in a message as (round, frame), where there is one; FrameError where its envelope is off."""
    found = [key for key in content.array_records if key.startswith(_BASE_PREFIX)]
    return (_round_in(found[-1], _BASE_PREFIX), read_frame(content.array_records[found[-1]])) if found else None


def read_updates(content: RecordDict) -> list[tuple[int, bytes]]:
    """Every update in a message as (round, frame); FrameError where its envelope is off."""
    return [
        (_round_in(key, _PREFIX), read_frame(record))
        for key, record in content.array_records.items()
        if key.startswith(_PREFIX)
    ]


def _round_in(key: str, prefix: str) -> int:
    said = key.removeprefix(prefix)
    if not (said.isascii() and said.isdigit() and len(said) <= _MOST_DIGITS):
        raise RefusedFrameError(
            f"A record with an update is named after its round, as {update_key(7)!r} is; got {key[:64]!r}. Was the "
            "message made by another program?",
            "malformed envelope",
        )
    return int(said)


def unfolded(
    updates: Iterable[tuple[int, bytes]], base: str, folded_round: int, templates: Sequence[Template] = ()
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(round, change) of every update after `folded_round`, in order, for a camera to fold one by one.

    An update that came before, because its confirmation was lost, is passed over: folding is idempotent.

    Args:
        updates: (round, frame) in any order, as from `read_updates`.
        base: fingerprint of the base model.
        folded_round: the last round that this camera has folded, 0 at first.
        templates: what frames without names may be of (`FrameSpec.templates`).

    Raises:
        FrameError: a frame is not intact, or not for the base that the camera has by then.
    """
    for round, frame in sorted(updates):
        if round > folded_round:
            yield round, decode(frame, base=global_fingerprint(base, folded_round), templates=templates)
            folded_round = round
