"""The columns of a run's rows: what each is called and what it holds. Knows words and the kinds of values; not rows or
files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real

__all__ = [
    "CAMERA_COLUMNS",
    "CHOOSING_ROUND_COLUMNS",
    "GUESSING_CAMERA_COLUMNS",
    "GUESSING_ROUND_COLUMNS",
    "LOSING_ROUND_COLUMNS",
    "MULTICAST_ROUND_COLUMNS",
    "NUMBER",
    "ROUND_COLUMNS",
    "TOGETHER_ROUND_COLUMNS",
    "Kind",
    "columns_of",
]


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError
    return int(value)


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    return float(value) if math.isfinite(value) else None


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return str(value)


def _counts(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {_word(reason): _integer(count) for reason, count in sorted(value.items())}


@dataclass(frozen=True)
class Kind:
    """What a column holds: a word for it, and the check that gives the value to write."""

    name: str
    check: Callable[[object], object]


INTEGER = Kind("an integer", _integer)
NUMBER = Kind("a number or None", _number)
FLAG = Kind("True or False", _flag)
WORD = Kind("a string", _word)
COUNTS = Kind("counts by reason", _counts)

_SIZES = {
    f"{whose}{way}_{what}_bytes": INTEGER
    for whose in ("", "full_", "full_fp32_")
    for way in ("uplink", "downlink", "multicast_downlink")
    for what in ("payload", "frame", "message")
}
"""Of all cameras in a round: this method's, full fine-tuning's under the same codec, and in fp32."""

ROUND_COLUMNS: dict[str, Kind] = {
    "round": INTEGER,
    "cameras_counted": INTEGER,
    "cameras_left_out": INTEGER,
    "skipped": FLAG,
    "reasons": COUNTS,
    "cameras_measured": INTEGER,
    "accuracy": NUMBER,
    "accuracy_clean": NUMBER,
    "accuracy_source": NUMBER,
    "accuracy_zero_byte": NUMBER,
    **_SIZES,
    "uplink_bytes_on_air": INTEGER,
    "downlink_bytes_on_air": INTEGER,
    "aggregation_error": NUMBER,
    "round_time_s": NUMBER,
    "energy_radio_j": NUMBER,
    "energy_compute_j": NUMBER,
    "full_fp32_energy_radio_j": NUMBER,
    "seconds": NUMBER,
}

CAMERA_COLUMNS: dict[str, Kind] = {
    "round": INTEGER,
    "camera": INTEGER,
    "corruption": WORD,
    "severity": INTEGER,
    "link": WORD,
    "status": WORD,
    "reason": WORD,
    "num_examples": INTEGER,
    "train_loss": NUMBER,
    "uplink_payload_bytes": INTEGER,
    "uplink_frame_bytes": INTEGER,
    "uplink_message_bytes": INTEGER,
    "downlink_payload_bytes": INTEGER,
    "downlink_frame_bytes": INTEGER,
    "downlink_message_bytes": INTEGER,
    "uplink_bytes_on_air": INTEGER,
    "downlink_bytes_on_air": INTEGER,
    "uplink_air_time_s": NUMBER,
    "downlink_time_s": NUMBER,
    "elapsed_s": NUMBER,
    "compute_s": NUMBER,
    "reply_s": NUMBER,
    "energy_radio_j": NUMBER,
    "energy_compute_j": NUMBER,
    "accuracy": NUMBER,
    "accuracy_clean": NUMBER,
    "accuracy_source": NUMBER,
    "accuracy_zero_byte": NUMBER,
}

GUESSING_ROUND_COLUMNS: dict[str, Kind] = {
    "labels_used": INTEGER,
    "online_accuracy": NUMBER,
    "cameras_collapsed": INTEGER,
}
"""What a round's row has besides, where cameras learn from images without labels."""

GUESSING_CAMERA_COLUMNS: dict[str, Kind] = {
    "labels_used": INTEGER,
    "online_accuracy": NUMBER,
    "pseudo_label_coverage": NUMBER,
    "pseudo_label_precision": NUMBER,
    "collapsed": FLAG,
}
"""The same of a camera's row."""


CHOOSING_ROUND_COLUMNS: dict[str, Kind] = {
    "layers_chosen": WORD,
    "needed_payload_bytes": INTEGER,
}
"""What a round's row has besides, where the server chooses the layers: in the round that does, which, and what a
camera's frame takes from then on; in others "" and 0."""

TOGETHER_ROUND_COLUMNS: dict[str, Kind] = {
    "cameras_told_together": INTEGER,
}
"""What a round's row has besides, where cameras hear updates together: how many did, which have no row of their own."""


MULTICAST_ROUND_COLUMNS: dict[str, Kind] = {
    "cameras_repaired": INTEGER,
    **{
        f"{whose}unicast_downlink_{what}_bytes": INTEGER
        for whose in ("", "full_", "full_fp32_")
        for what in ("payload", "frame", "message")
    },
}
"""What a round's row has besides, where a link's updates go down by multicast: how many cameras asked for it again, and
what goes down where each camera has a copy of its own."""


LOSING_ROUND_COLUMNS: dict[str, Kind] = {
    "updates_lost": INTEGER,
}
"""What a round's row has besides, where a link loses messages: how many cameras lost what went down after training.
Lost replies, and lost messages that ask for one, are among `reasons`."""


def columns_of(
    *, guesses: bool, chooses: bool = False, together: bool = False, multicasts: bool = False, loses: bool = False
) -> tuple[dict[str, Kind], dict[str, Kind]]:
    """The columns of rounds and of cameras, in a run whose cameras have all labels, or (`guesses`) do not, whose
    layers the server `chooses`, or not, whose cameras hear updates `together`, or each alone, and some of whose links
    have multicast (`multicasts`) or lose messages (`loses`), or none."""
    of_rounds = (
        ROUND_COLUMNS
        | (GUESSING_ROUND_COLUMNS if guesses else {})
        | (CHOOSING_ROUND_COLUMNS if chooses else {})
        | (TOGETHER_ROUND_COLUMNS if together else {})
        | (MULTICAST_ROUND_COLUMNS if multicasts else {})
        | (LOSING_ROUND_COLUMNS if loses else {})
    )
    return of_rounds, CAMERA_COLUMNS | (GUESSING_CAMERA_COLUMNS if guesses else {})
