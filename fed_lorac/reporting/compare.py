"""Several runs side by side, as Markdown. Knows rows of summaries; not models, cameras or messages."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from fed_lorac.records.summaries import NO_BATCH_NORM, has_batch_norm
from fed_lorac.reporting.alike import ComparedRun, Row, check_alike, rows_of
from fed_lorac.reporting.cells import (
    accuracy_in,
    clear_air,
    days_on,
    fleet_mean,
    markdown_line,
    of_all,
    share_of,
    spread,
    took,
)
from fed_lorac.reporting.gain import gain_recovered, is_full, is_in_fp32

__all__ = ["compare", "comparison"]

_BASE = {"source": "source", "zero_byte": "local batch norm, nothing sent"}


def compare(folders: Iterable[str | os.PathLike[str]], target: float | None = None) -> str:
    """Finished runs over one fleet side by side, as a Markdown table with notes; see `comparison`.

    Args:
        folders: the runs' folders, or `Run`s.
        target: also what reaching this accuracy took, 0 to 1.

    Raises:
        RunError: a folder holds no finished run, or the runs do not compare.
    """
    return comparison([ComparedRun.read(Path(folder), target) for folder in folders])


def comparison(runs: Sequence[ComparedRun]) -> str:
    """A Markdown table of runs over one fleet, and notes under it: accuracy, bytes, days of sending on the fleet's
    slowest link, and the share of full fine-tuning's gain recovered.

    Runs that differ in their seed alone are one row: the mean over seeds and the sample standard deviation.

    Raises:
        RunError: the runs differ in data, base, rounds, weather or links, so that their numbers do not compare.
    """
    check_alike(runs)
    table = _Table(rows_of(runs))
    return "\n".join([*table.lines(), "", *(f"- {note}" for note in table.notes())])


class _Table:
    """The rows, what they are held against, and the columns that they need."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._runs = [run for row in rows for run in row.runs]
        by_seed = {run.seed: run for run in reversed(self._runs)}  # the first of each seed
        self._base = Row("", [by_seed[seed] for seed in sorted(by_seed)])
        self._full = _reference(rows)
        days = self._runs[0].summary["days"]
        self._batch_norm = has_batch_norm(self._runs[0].summary)
        self._link = max(days, key=lambda name: days[name]["full"])

    def lines(self) -> Iterator[str]:
        """The table."""
        accuracies, costs = self._accuracies(), self._costs()
        seeds = [_seeds] if any(row.seeds != [self._runs[0].seed] for row in self._rows) else []
        head = ["", *(["seeds"] * len(seeds)), *accuracies, *costs]
        yield markdown_line(head)
        yield markdown_line(["---", *["---:"] * (len(head) - 1)])
        for arm, label in _BASE.items():
            free = [
                at_no_cost if arm == "zero_byte" or name != _GAIN else "" for name, (_, at_no_cost) in costs.items()
            ]
            own = [cell(self._base) for cell in seeds]
            missing = arm == "zero_byte" and not self._batch_norm
            found = (NO_BATCH_NORM if missing else cell(self._base, arm) for cell in accuracies.values())
            yield markdown_line([label, *own, *found, *([""] * len(free) if missing else free)])
        for row in self._rows:
            means = (cell(row, "adapted") for cell in accuracies.values())
            yield markdown_line(
                [row.label, *(cell(row) for cell in seeds), *means, *(cell(row) for cell, _ in costs.values())]
            )

    def _accuracies(self) -> dict[str, Callable[[Row, str], str]]:
        """Header -> a row's cell, by arm."""
        weathers = dict.fromkeys(chain.from_iterable(run.summary["per_corruption"] for run in self._runs))
        by_weather = {weather: partial(accuracy_in, weather) for weather in weathers}
        return {**by_weather, "fleet mean": fleet_mean, "clear air": clear_air}

    def _costs(self) -> dict[str, tuple[Callable[[Row], str], str]]:
        """Header -> a row's cell, and what the base alone costs."""
        found: dict[str, tuple[Callable[[Row], str], str]] = {
            "bytes up + down": (lambda row: spread(of_all(row, "total_bytes"), "{:,.0f}"), "0"),
            "of full": (partial(share_of, "full_fp32_total_bytes"), "0 %"),
        }
        if self._codecs_differ():
            found["of full, same codec"] = partial(share_of, "full_total_bytes"), "0 %"
        found[f"days on {self._link}"] = partial(days_on, self._link), "0"
        found[_GAIN] = self._gain, "0 %" if self._full else ""
        if (asked := self._runs[0].took) is not None:
            found[f"bytes to {asked['accuracy']:.1%}"] = took, ""
        return found

    def _codecs_differ(self) -> bool:
        """Whether full fine-tuning sends something else under a row's codec than in fp32, as far as is known."""
        summaries = [run.summary for run in self._runs]
        return any(s["full_fp32_total_bytes"] != s["full_total_bytes"] for s in summaries)

    def _gain(self, row: Row) -> str:
        """Of each seed's own gain; seeds that full fine-tuning lacks are left out."""
        if self._full is None:
            return ""
        full = {run.seed: run.summary for run in self._full.runs}
        pairs = [(run.summary, full[run.seed]) for run in row.runs if run.seed in full]
        shares = [share for own, best in pairs if (share := gain_recovered(own, best)) is not None]
        return spread([100 * share for share in shares], "{:.0f}", " %") if shares else ""

    def notes(self) -> Iterator[str]:
        """What a reader must know beside the numbers."""
        yield _cameras(self._runs)
        yield '"of full": bytes over those of full fine-tuning in fp32, whatever the codec of the row.'
        if self._codecs_differ():
            yield '"same codec": over those of full fine-tuning under the codec of the row.'
        if any(len(row.runs) > 1 for row in self._rows):
            yield "a ± b: mean and sample standard deviation over the seeds."
        if len({tuple(row.seeds) for row in self._rows}) > 1:
            yield "The rows are not of the same seeds: some of what sets them apart may be chance."
        yield from self._gain_notes()
        yield from self._base_notes()
        if any(run.summary["full_fp32_total_bytes"] is None for run in self._runs):
            yield '"-" under "of full": the version that made the run did not record it.'

    def _gain_notes(self) -> Iterator[str]:
        if self._full is None:
            return
        if not self._batch_norm:
            yield f'"{_GAIN}" is over "{_BASE["source"]}": the network has no batch norm to adapt for nothing.'
        if sum(_is_full(row) for row in self._rows) > 1:
            yield f'"{_GAIN}" is of the gain of {self._full.label}.'
        for row in self._rows:
            if missing := sorted(set(row.seeds) - set(self._full.seeds)):
                seeds = f"seed{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
                yield f'"{_GAIN}" of {row.label} leaves out {seeds}, which no run of full fine-tuning has.'

    def _base_notes(self) -> Iterator[str]:
        """Where the base alone was measured as something else in another run of the same seed."""
        first = {run.seed: run for run in self._base.runs}
        for arm, label in _BASE.items():
            if others := [run.folder for run in self._runs if _digits(run, arm) != _digits(first[run.seed], arm)]:
                yield (
                    f'"{label}" is as {", ".join(run.folder for run in self._base.runs)} measured it; it differs in '
                    f"{', '.join(others)}, whose gain is over its own."
                )


_GAIN = "gain recovered"


def _reference(rows: Sequence[Row]) -> Row | None:
    """The row of full fine-tuning that gains are held against: in fp32, where there is one."""
    full = [row for row in rows if _is_full(row)]
    exact = [row for row in full if all(is_in_fp32(run.summary) for run in row.runs)]
    return next(iter([*exact, *full]), None)


def _is_full(row: Row) -> bool:
    return is_full(row.runs[0].summary)


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row.seeds))


def _cameras(runs: Sequence[ComparedRun]) -> str:
    """Over how many cameras means are."""
    found: dict[str, str] = {}
    for run in runs:
        counts = run.summary.get("cameras_measured")
        by_weather = [f"{name} {its['of']}" for name, its in counts["per_corruption"].items()] if counts else []
        said = f"{counts['of']} ({', '.join(by_weather)})" if counts else "not known, as an older version made the run"
        found.setdefault(said, run.folder)
    each = found if len(found) == 1 else [f"{said} in {folder}" for said, folder in found.items()]
    return f"Cameras that means are over: {'; '.join(each)}. In brackets: how many, where some were not measured."


def _digits(run: ComparedRun, arm: str) -> str:
    return fleet_mean(Row("", [run]), arm)
