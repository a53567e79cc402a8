"""Accuracy against bytes: the figure that the product is for. Knows what is reported; not how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from fed_lorac.pages.chart import Absent, Figure, Level, Plot, Row, Series
from fed_lorac.pages.figures.levels import accuracy_axis, below, free_and_full, levels
from fed_lorac.pages.reported import Arm, Reported
from fed_lorac.pages.words import byte_axis, bytes_said, mean_and_half, percent, share_said
from fed_lorac.reporting.intervals import known

__all__ = ["Point", "cost_said", "frontier", "on_front", "points"]

_TITLE = "Accuracy against bytes"
_SHARE, _SAME_CODEC = "share_of_full_fp32", "share_of_full_same_codec"


@dataclass(frozen=True)
class Point:
    """An arm's means over its seeds, and half of the 95 % interval of its accuracy."""

    arm: Arm
    total_bytes: float
    accuracy: float
    half: float | None
    share: float | None
    gain: float | None
    share_same_codec: float | None = None


def points(found: Reported) -> list[Point]:
    """The arms whose accuracy was measured."""
    result = []
    for arm in found.arms:
        accuracy, half = mean_and_half(arm.values(found.column("accuracy")))
        total, share, same, gain = (
            mean_and_half(arm.values(name))[0]
            for name in ("total_bytes", _SHARE, _SAME_CODEC, found.column("gain_recovered"))
        )
        if accuracy is not None and total is not None:
            result.append(Point(arm, total, accuracy, half, share, gain, same))
    return result


def on_front(all_points: Sequence[Point]) -> list[Point]:
    """The Pareto front, by means: no other arm is as accurate for as few bytes. The fewest bytes first."""
    front: list[Point] = []
    for point in sorted(all_points, key=lambda point: (point.total_bytes, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def frontier(found: Reported) -> Figure | Absent:
    """Each arm's accuracy against all it sends, up and down, with the Pareto front: of arms that send nothing too, and
    of none that is no better than training nothing."""
    every, (free, _) = points(found), free_and_full(found)
    measured = [point for point in every if point.total_bytes > 0]
    if not measured:
        return Absent(_TITLE, "no arm that sends anything was measured.")
    front = on_front([point for point in every if free is None or point.accuracy > free])
    rows = _rows(found, front)
    of_front = {point.arm.label for point in front} | {point.arm.label for point in measured if point.share == 1}
    ordered = sorted(measured, key=lambda point: point.total_bytes)
    accuracy = found.column("accuracy")
    series = [one for point in ordered for one in _series(point, accuracy, told=point.arm.label in of_front)]
    sending = [point for point in front if point.total_bytes]
    if len(sending) > 1:
        xs, ys = [point.total_bytes for point in sending], [point.accuracy for point in sending]
        series.insert(0, Series("Pareto front", xs, ys, [], steps=True))
    sizes = [row["total_bytes"] for row in rows]
    x = byte_axis("bytes of the whole run, up + down" + _under(found), sizes, found.full_bytes)
    over = ", mean over the rounds" if found.over_rounds else ""
    y = accuracy_axis(found, f"accuracy, each camera in its weather{over}", [y for one in series for y in one.y])
    chart = Plot(series, x, y, [*levels(found), *_best_silent(every, free)])
    alt = f"{len(measured)} arms by total bytes on a log axis and accuracy. On the Pareto front: " + "; ".join(
        f"{point.arm.label}, {percent(point.accuracy)} for {bytes_said(point.total_bytes)}" for point in front
    )
    return Figure("frontier", _TITLE, _caption(found, every, front), f"{alt}.", rows, chart)


def _under(found: Reported) -> str:
    return "\n(below: share of full fine-tuning in fp32)" if found.full_bytes else ""


def _best_silent(every: Sequence[Point], free: float | None) -> list[Level]:
    """The best arm that trains and sends nothing, as a line: it has no place on a log axis of bytes."""
    silent = [point for point in every if not point.total_bytes and free is not None and point.accuracy > free]
    best = max(silent, key=lambda point: point.accuracy, default=None)
    return [] if best is None else [Level(f"nothing sent ({best.arm.label}), {percent(best.accuracy)}", best.accuracy)]


def _rows(found: Reported, on: Sequence[Point]) -> list[Row]:
    front = {point.arm.label for point in on}
    accuracies = [found.column(name) for name in ("accuracy", "zero_byte_accuracy", "full_accuracy")]
    columns = ("seed", "run", "total_bytes", _SHARE, _SAME_CODEC, *accuracies)
    return [
        {"arm": arm.label, **{name: run.row[name] for name in columns}, "on_front": arm.label in front}
        for arm in found.arms
        for run in arm.runs
        if run.row[accuracies[0]] is not None and run.row["total_bytes"] > 0
    ]


def _series(point: Point, accuracy: str, *, told: bool) -> list[Series]:
    """An arm's mean, which the legend tells of in any case where it is `told`, and its single seeds, whose `accuracy`
    is in this column."""
    arm = point.arm
    gain = "" if point.gain is None else f"\n{100 * point.gain:.0f} % of full fine-tuning's gain"
    hover = f"{arm.label}\n{percent(point.accuracy, point.half)}, seeds: {len(arm.runs)}\n{cost_said(point)}{gain}"
    mean = Series(arm.label, [point.total_bytes], [point.accuracy], [hover], arm.look, [point.half], told=told)
    runs = [run for run in arm.runs if run.row[accuracy] is not None]
    each = Series(
        arm.label,
        [run.row["total_bytes"] for run in runs],
        [run.row[accuracy] for run in runs],
        [f"{arm.label}\n{run.name}\n{percent(run.row[accuracy])}" for run in runs],
        arm.look,
        faint=True,
    )
    return [each, mean] if len(runs) > 1 else [mean]


def _caption(found: Reported, every: Sequence[Point], front: Sequence[Point]) -> str:
    measured = [point for point in every if point.total_bytes > 0]
    said = [f"On the front: {'; '.join(map(_said, front))}." if front else "No arm is better than training nothing."]
    said += _gains([point for point in every if point.share is None or point.share < 1])
    if not known(point.gain for point in measured):
        said.append("Without a run of full fine-tuning, shares of its gain are not known.")
    said += below(found, {point.arm.label: point.accuracy for point in measured})
    many = len(found.seeds) > 1
    said.append(
        "Bars are 95 % intervals over the seeds, pale points single seeds: if bars overlap, the order may be chance."
        if many
        else "One seed: small differences may be chance."
    )
    return " ".join(said)


def _gains(others: Sequence[Point]) -> list[str]:
    """What keeping a share of full fine-tuning's gain takes at least, each arm once, at the most that it keeps."""
    found: dict[str, str] = {}
    for asked in (1.0, 0.9, 0.5):
        enough = [point for point in others if point.gain is not None and point.gain >= asked]
        if enough:
            least = min(enough, key=lambda point: point.total_bytes)
            gain = f"Cheapest with at least {share_said(asked)} of full fine-tuning's gain"
            found.setdefault(least.arm.label, f"{gain}: {least.arm.label}, {cost_said(least)}.")
    return list(found.values())


def _said(point: Point) -> str:
    return f"{point.arm.label} ({percent(point.accuracy)} for {bytes_said(point.total_bytes)})"


def cost_said(point: Point) -> str:
    """Bytes, and both shares of full fine-tuning's: that under the same codec where it is another."""
    if point.share is None:
        return bytes_said(point.total_bytes)
    shares = f"{share_said(point.share)} of full fine-tuning in fp32"
    if point.share_same_codec is not None and share_said(point.share_same_codec) != share_said(point.share):
        shares += f", {share_said(point.share_same_codec)} of it under the same codec"
    return f"{bytes_said(point.total_bytes)} ({shares})"
