"""Accuracy against bytes, round after round. Knows what is reported; not how it is drawn."""

from itertools import accumulate

from fed_lorac.pages.chart import Absent, Figure, Plot, Row, Series
from fed_lorac.pages.figures.levels import accuracy_axis, levels
from fed_lorac.pages.reported import Arm, Reported, ReportedRun
from fed_lorac.pages.words import byte_axis, bytes_said, mean_and_half, percent
from fed_lorac.records.summaries import has_batch_norm

__all__ = ["curves"]

_TITLE = "Accuracy as bytes are spent"


def curves(found: Reported) -> Figure | Absent:
    """Each arm's accuracy after each measured round, against what it had sent by then."""
    if not found.sending:
        return Absent(_TITLE, "nothing was sent.")
    by_arm = {arm.label: _points(arm) for arm in found.arms}
    if all(len({row["round"] for row in rows}) < 2 for rows in by_arm.values()):
        return Absent(_TITLE, "only the last round was measured (run.evaluate_every).")
    series = [_series(arm, by_arm[arm.label]) for arm in found.arms if by_arm[arm.label]]
    rows = [row for arm in found.arms for run in arm.runs for row in _rows(arm.label, run)]
    sizes = [row["total_bytes"] for row in rows if row["total_bytes"] > 0]
    x = byte_axis("bytes so far, up + down", sizes, found.full_bytes)
    ends = (
        "Weather changes from round to round, and accuracy with it."
        if found.changing
        else "Each point is a measured round; a curve that is still rising has not converged."
    )
    caption = f"{_first_above(by_arm)} {ends}"
    alt = f"Accuracy over bytes so far, {len(series)} curves, one for each arm."
    y = accuracy_axis(found, "accuracy, mean over seeds", [y for one in series for y in one.y])
    chart = Plot(series, x, y, [] if found.changing else levels(found))
    return Figure("curves", _TITLE, caption, alt, rows, chart)


def _rows(label: str, run: ReportedRun) -> list[Row]:
    sent = accumulate(row["uplink_frame_bytes"] + row["downlink_frame_bytes"] for row in run.rounds)
    return [
        {
            "arm": label,
            "seed": run.seed,
            "run": run.row["run"],
            "round": row["round"],
            "total_bytes": total,
            "accuracy": row["accuracy"],
            "nothing_sent": row[f"accuracy_{'zero_byte' if has_batch_norm(run.summary) else 'source'}"],
        }
        for row, total in zip(run.rounds, sent, strict=True)
        if row["accuracy"] is not None
    ]


def _points(arm: Arm) -> list[Row]:
    """The means over seeds, by round."""
    rows = [row for run in arm.runs for row in _rows(arm.label, run)]
    found = []
    for number in sorted({row["round"] for row in rows}):
        its = [row for row in rows if row["round"] == number]
        accuracy, half = mean_and_half(row["accuracy"] for row in its)
        total, free = (mean_and_half(row[name] for row in its)[0] for name in ("total_bytes", "nothing_sent"))
        found.append({"round": number, "total_bytes": total, "accuracy": accuracy, "half": half, "free": free})
    return [row for row in found if row["total_bytes"]]


def _series(arm: Arm, rows: list[Row]) -> Series:
    hover = [
        f"{arm.label}, round {row['round']}\n{percent(row['accuracy'], row['half'])}, {bytes_said(row['total_bytes'])}"
        for row in rows
    ]
    xs, ys = ([row[name] for row in rows] for name in ("total_bytes", "accuracy"))
    return Series(arm.label, xs, ys, hover, arm.look, line=True)


def _first_above(by_arm: dict[str, list[Row]]) -> str:
    """Which arm is first above what is free in the same weather, and for how many bytes."""
    above = [
        (row["total_bytes"], label, row)
        for label, rows in by_arm.items()
        for row in rows
        if row["free"] is not None and row["accuracy"] > row["free"]
    ]
    if not above:
        return "No arm is more accurate than sending nothing."
    total, label, row = min(above, key=lambda one: one[0])
    return (
        f"{label} is the first to beat sending nothing: {percent(row['accuracy'])} against {percent(row['free'])} "
        f"in round {row['round']}, for {bytes_said(total)}."
    )
