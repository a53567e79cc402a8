"""Bytes a round against full fine-tuning. Knows what is reported; not how it is drawn."""

import math
from statistics import fmean

from fed_lorac.pages.chart import Absent, Axis, Figure, Plot, Row, Series
from fed_lorac.pages.reported import Reported
from fed_lorac.pages.words import byte_axis, bytes_said, mean_and_half, share_said
from fed_lorac.reporting.intervals import known

__all__ = ["per_round"]

_TITLE = "Bytes a round, against full fine-tuning"
_MEASURED = {
    "up": "uplink_frame_bytes",
    "down": "downlink_frame_bytes",
    "full fine-tuning, same codec": "full_same_codec_bytes",
    "full fine-tuning, fp32": "full_fp32_bytes",
}


def per_round(found: Reported) -> Figure | Absent:
    """What each arm sends a round, up and down, all cameras together, and what full fine-tuning would."""
    rows = _rows(found)
    if not rows:
        return Absent(_TITLE, "nothing was sent.")
    words = [arm.label for arm in reversed(found.sending)]
    means = {
        (arm.label, name): mean_and_half(row[column] for row in rows if row["arm"] == arm.label)[0]
        for arm in found.sending
        for name, column in _MEASURED.items()
    }
    series = []
    for look, name in enumerate(_MEASURED):
        its = [(value, label) for label in words if (value := means[label, name])]
        hover = [f"{label}\n{name}: {bytes_said(value)} a round" for value, label in its]
        grey = None if name == "full fine-tuning, fp32" else look
        series.append(Series(name, [value for value, _ in its], [label for _, label in its], hover, grey))
    x = byte_axis("bytes a round, all cameras together", [x for one in series for x in one.x], None)
    alt = f"Bytes a round on a log axis, up, down and full fine-tuning's, for each of {len(words)} arms."
    chart = Plot(series, x, Axis(words=words))
    return Figure("bytes", _TITLE, _caption(found, means), alt, rows, chart)


def _rows(found: Reported) -> list[Row]:
    def mean(rounds: list[Row], *columns: str) -> float | None:
        if any(row.get(column) is None for row in rounds for column in columns) or not rounds:
            return None
        return fmean(sum(row[column] for column in columns) for row in rounds)

    return [
        {
            "arm": arm.label,
            "seed": run.seed,
            "run": run.row["run"],
            "uplink_frame_bytes": mean(run.rounds, "uplink_frame_bytes"),
            "downlink_frame_bytes": mean(run.rounds, "downlink_frame_bytes"),
            "full_same_codec_bytes": mean(run.rounds, "full_uplink_frame_bytes", "full_downlink_frame_bytes"),
            "full_fp32_bytes": mean(run.rounds, "full_fp32_uplink_frame_bytes", "full_fp32_downlink_frame_bytes"),
        }
        for arm in found.sending
        for run in arm.runs
    ]


def _total(means: dict[tuple[str, str], float | None], label: str) -> float:
    """Up and down; of an arm that is not known to send so much, more than any."""
    ways = known(means[label, way] for way in ("up", "down"))
    return sum(ways) if len(ways) == 2 else math.inf


def _caption(found: Reported, means: dict[tuple[str, str], float | None]) -> str:
    least = min((arm.label for arm in found.sending), key=lambda label: _total(means, label))
    up, down = (means[least, way] or 0 for way in ("up", "down"))
    said = [f"{least} sends least: {bytes_said(up)} up and {bytes_said(down)} down a round, for all cameras together."]
    fp32, same = means[least, "full fine-tuning, fp32"], means[least, "full fine-tuning, same codec"]
    if fp32:
        also = f", {share_said((up + down) / same)} of that under the same codec" if same and same != fp32 else ""
        said.append(f"That is {share_said((up + down) / fp32)} of full fine-tuning in fp32{also}.")
    said.append("Frames are counted: what crosses the radio, without Flower's messages around them.")
    return " ".join(said)
