"""The cells of a comparison: a row's mean over its seeds, and how far they spread. Knows rows of summaries;
not which columns there are."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from fed_lorac.records.summaries import Summary
from fed_lorac.reporting.alike import Row

__all__ = ["accuracy_in", "clear_air", "days_on", "fleet_mean", "markdown_line", "of_all", "share_of", "spread", "took"]


def of_all(row: Row, key: str) -> list[Any]:
    """What each run's summary has under a key."""
    return [run.summary[key] for run in row.runs]


def markdown_line(cells: Iterable[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def spread(values: Sequence[float], form: str, unit: str = "") -> str:
    """Mean ± sample standard deviation of what differs between seeds, else the value; "-" of none."""
    if not values:
        return "-"
    if len(set(values)) == 1:
        return form.format(values[0]) + unit
    return f"{form.format(fmean(values))} ± {form.format(stdev(values))}{unit}"


def accuracy_in(weather: str, row: Row, arm: str) -> str:
    """Of the cameras in one weather."""
    means = [s["per_corruption"].get(weather, {}).get(arm) for s in _of(row)]
    counts = [_cameras(s).get("per_corruption", {}).get(weather, {}) for s in _of(row)]
    return _percents(means, [(count.get(arm), count.get("of")) for count in counts])


def fleet_mean(row: Row, arm: str) -> str:
    """Of all cameras, each in its weather."""
    counts = [(_cameras(s).get(arm), _cameras(s).get("of")) for s in _of(row)]
    return _percents(of_all(row, f"{arm}_accuracy"), counts)


def clear_air(row: Row, arm: str) -> str:
    """Of all cameras, in clear air."""
    counts = [(_cameras(s).get("clean", {}).get(arm), _cameras(s).get("of")) for s in _of(row)]
    return _percents([s["clean_accuracy"][arm] for s in _of(row)], counts)


def share_of(denominator: str, row: Row) -> str:
    """All bytes over those of full fine-tuning under this key of the summary."""
    return spread([100 * s["total_bytes"] / s[denominator] for s in _of(row) if s[denominator]], "{:.1f}", " %")


def days_on(link: str, row: Row) -> str:
    """Days that a camera's uplink of the whole run takes on a link."""
    return spread([s["days"][link]["adapter"] for s in _of(row)], "{:.3g}")


def took(row: Row) -> str:
    """What reaching an accuracy took."""
    found = [run.took for run in row.runs if run.took is not None and run.took["bytes"] is not None]
    if not found:
        return "not reached"
    if len(row.runs) == 1:
        return f"{found[0]['bytes']:,} by round {found[0]['rounds']}"
    sent = spread([one["bytes"] for one in found], "{:,.0f}")
    return f"{sent}, reached by {len(found)} of {len(row.runs)} seeds"


def _percents(means: Iterable[float | None], counts: Iterable[tuple[int | None, int | None]]) -> str:
    """A mean of means in per cent; in brackets the fewest cameras that one is over, where that is not all."""
    few = min((measured for measured, of in counts if measured and measured != of), default=None)
    return spread([100 * mean for mean in means if mean is not None], "{:.1f}") + (f" ({few})" if few else "")


def _of(row: Row) -> list[Summary]:
    return [run.summary for run in row.runs]


def _cameras(summary: Summary) -> Mapping[str, Any]:
    """Over how many cameras its means are; an older summary does not say."""
    found: Mapping[str, Any] = summary.get("cameras_measured", {})
    return found
