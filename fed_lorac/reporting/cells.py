"""The cells of a comparison: a row's mean over its seeds, and how sure it is. Knows rows of summaries; not which
columns there are."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from fed_lorac.records.summaries import Summary
from fed_lorac.reporting.alike import Row
from fed_lorac.reporting.intervals import interval_95, known
from fed_lorac.reporting.paired import Difference

__all__ = [
    "EMPTY",
    "SOME_SEEDS",
    "Cell",
    "accuracy_in",
    "chance",
    "clear_air",
    "days_on",
    "fleet_mean",
    "mean_of",
    "mean_of_some",
    "of_some_seeds",
    "points",
    "share_of",
    "to_reach",
    "took",
]


@dataclass(frozen=True)
class Cell:
    """What people read; for programs the number in it, and half of its 95 % interval."""

    text: str
    number: float | None = None
    half: float | None = None


EMPTY = Cell("")


def mean_of(values: Sequence[float], form: str, unit: str = "") -> Cell:
    """The mean of what differs between seeds ± half of its 95 % interval, else the value; "-" of none."""
    if not values:
        return Cell("-")
    if len(set(values)) == 1:
        return Cell(form.format(values[0]) + unit, values[0])
    mean, half = fmean(values), interval_95(values)
    return Cell(f"{form.format(mean)} ± {form.format(half)}{unit}", mean, half)


SOME_SEEDS = (
    '"(k of n)" after a gain: it is known for k of the n seeds; in the others full fine-tuning was not run or gained '
    "nothing."
)
"""What a table says where a cell is of some of its seeds."""


def mean_of_some(values: Sequence[float | None], form: str, unit: str = "") -> Cell:
    """`mean_of` the values that there are, and of how many, where some are missing (None or nan)."""
    found = known(values)
    cell = mean_of(found, form, unit)
    return replace(cell, text=f"{cell.text} ({len(found)} of {len(values)})") if of_some_seeds(values) else cell


def of_some_seeds(values: Sequence[float | None]) -> bool:
    """Whether `mean_of_some` of these is of some of them alone, as `SOME_SEEDS` says."""
    return 0 < len(known(values)) < len(values)


def accuracy_in(weather: str, row: Row, arm: str) -> Cell:
    """Of the cameras in one weather."""
    means = [s["per_corruption"].get(weather, {}).get(arm) for s in _of(row)]
    counts = [_cameras(s).get("per_corruption", {}).get(weather, {}) for s in _of(row)]
    return _percents(means, [(count.get(arm), count.get("of")) for count in counts])


def fleet_mean(row: Row, arm: str) -> Cell:
    """Of all cameras, each in its weather."""
    counts = [(_cameras(s).get(arm), _cameras(s).get("of")) for s in _of(row)]
    return _percents([s[f"{arm}_accuracy"] for s in _of(row)], counts)


def clear_air(row: Row, arm: str) -> Cell:
    """Of all cameras, in clear air."""
    counts = [(_cameras(s).get("clean", {}).get(arm), _cameras(s).get("of")) for s in _of(row)]
    return _percents([s["clean_accuracy"][arm] for s in _of(row)], counts)


def share_of(denominator: str, row: Row) -> Cell:
    """All bytes over those of full fine-tuning under this key of the summary."""
    return mean_of([100 * s["total_bytes"] / s[denominator] for s in _of(row) if s[denominator]], "{:.2f}", " %")


def days_on(link: str, row: Row) -> Cell:
    """Days that a camera's uplink of the whole run takes on a link."""
    return mean_of([s["days"][link]["adapter"] for s in _of(row)], "{:.3g}")


def to_reach(accuracy: float) -> str:
    """The header of `took`."""
    return f"bytes to {100 * accuracy:g} %"


def took(row: Row) -> Cell:
    """What reaching an accuracy took: bytes up and down until it was first measured. "-" of no runs."""
    if not row.runs:
        return Cell("-")
    found = [run.took for run in row.runs if run.took is not None and run.took["bytes"] is not None]
    if not found:
        return Cell("not reached")
    sent = mean_of([one["bytes"] for one in found], "{:,.0f}")
    if len(row.runs) == 1:
        return replace(sent, text=f"{sent.text} by round {found[0]['rounds']}")
    return replace(sent, text=f"{sent.text}, reached by {len(found)} of {len(row.runs)} seeds")


def points(found: Difference) -> Cell:
    """A difference of accuracies, in points."""
    mean, half = 100 * found.mean, 100 * found.half_95
    if math.isnan(half):
        return Cell(f"{mean:+.2f}", mean)
    return Cell(f"{mean:+.2f} ± {half:.2f}", mean, half)


def chance(p: float) -> Cell:
    """A p-value."""
    return Cell(f"{p:.3f}" if p >= 0.001 else "<0.001", p)


def _percents(means: Iterable[float | None], counts: Iterable[tuple[int | None, int | None]]) -> Cell:
    """A mean of means in per cent; in brackets the fewest cameras that one is over, where that is not all."""
    few = min((measured for measured, of in counts if measured and measured != of), default=None)
    found = mean_of([100 * mean for mean in means if mean is not None], "{:.1f}")
    return replace(found, text=f"{found.text} ({few})") if few else found


def _of(row: Row) -> list[Summary]:
    return [run.summary for run in row.runs]


def _cameras(summary: Summary) -> Mapping[str, Any]:
    """Over how many cameras its means are; an older summary does not say."""
    found: Mapping[str, Any] = summary.get("cameras_measured", {})
    return found
