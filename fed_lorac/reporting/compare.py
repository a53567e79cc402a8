"""Several runs side by side. Knows rows of summaries; not models, cameras or messages."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain

from fed_lorac.errors import ConfigError
from fed_lorac.records.summaries import NO_BATCH_NORM, downlinks, has_batch_norm, went_on
from fed_lorac.reporting.alike import ComparedRun, Row, check_alike, rows_of, scores_of
from fed_lorac.reporting.cells import (
    EMPTY,
    SOME_SEEDS,
    Cell,
    accuracy_in,
    clear_air,
    days_on,
    fleet_mean,
    mean_of,
    mean_of_some,
    of_some_seeds,
    share_of,
    to_reach,
    took,
)
from fed_lorac.reporting.gain import gain_recovered, is_full, rank_of_full
from fed_lorac.reporting.sheet import Sheet, check_format
from fed_lorac.reporting.tested import CHANCE, DIFFERENCE, no_test, paired_cells, paired_notes
from fed_lorac.runtime.files import home_expanded

__all__ = ["compare", "compared", "comparison"]

_BASE = {"source": "source", "zero_byte": "local batch norm, nothing sent"}


def compare(
    folders: Iterable[str | os.PathLike[str]],
    target: float | None = None,
    *,
    format: str = "markdown",
    against: str | os.PathLike[str] | None = None,
) -> str:
    """Finished runs over one fleet side by side, as a table with notes; see `comparison`.

    Args:
        folders: the runs' folders, or `Run`s.
        target: also what reaching this accuracy took, 0 to 1.
        format: "markdown", "csv" (numbers alone, intervals in columns of their own) or "latex" (package booktabs).
        against: the run whose row the others are tested against; None: full fine-tuning, else the first.

    Raises:
        RunError: a folder holds no finished run, or the runs do not compare.
        ConfigError: there is no such format, or target; `folders` is one folder and no list, or `against` is none of
            them.
    """
    check_format(format)
    if isinstance(folders, str | os.PathLike):
        raise ConfigError(
            f"Runs are compared as one list; got {os.fspath(folders)!r} alone. Call fl.compare([a, b]), with the "
            "folders or the Runs in the list."
        )
    return compared(folders, target, against).written(format)


def compared(
    folders: Iterable[str | os.PathLike[str]], target: float | None, against: str | os.PathLike[str] | None
) -> Sheet:
    """The runs of these folders side by side; see `compare`."""
    runs = [ComparedRun.read(home_expanded(os.fspath(folder)), target) for folder in folders]
    return comparison(runs, None if against is None else str(home_expanded(os.fspath(against))))


def comparison(runs: Sequence[ComparedRun], against: str | None = None) -> Sheet:
    """A table of runs over one fleet, and notes under it: accuracy, bytes, days of sending on the fleet's slowest link,
    the share of full fine-tuning's gain recovered, and whether a row differs from that of `against` (a folder) camera
    by camera.

    Runs that differ in their seed alone are one row: the mean over seeds, and half of its 95 % interval.

    Raises:
        RunError: the runs differ in data, base, rounds, weather or links, so that their numbers do not compare.
    """
    check_alike(runs)
    return _Table(rows_of(runs), against).sheet()


class _Table:
    """The rows, what they are held against, and the columns that they need."""

    def __init__(self, rows: Sequence[Row], against: str | None) -> None:
        self._rows = rows
        self._runs = [run for row in rows for run in row.runs]
        by_seed = {run.seed: run for run in reversed(self._runs)}  # the first of each seed
        self._base = Row("", [by_seed[seed] for seed in sorted(by_seed)])
        self._full = _full(rows)
        self._full_on = {run.fleet: (row, run.summary) for row in reversed(self._full) for run in reversed(row.runs)}
        self._other = [*self._full, *rows][0] if against is None else _row_of(against, rows)
        theirs = scores_of(self._other.runs)
        self._pairs = paired_cells([None if row is self._other else (scores_of(row.runs), theirs) for row in rows])
        days = self._runs[0].summary["days"]
        self._batch_norm = has_batch_norm(self._runs[0].summary)
        self._link = max(days, key=lambda name: days[name]["full"])

    def sheet(self) -> Sheet:
        """The table."""
        accuracies, costs = self._accuracies(), self._costs()
        seeds = [_seeds] if any(row.seeds != [self._runs[0].seed] for row in self._rows) else []
        head = ["", *(["seeds"] * len(seeds)), *accuracies, *costs, *([DIFFERENCE, CHANCE] if any(self._pairs) else [])]
        rows = []
        for arm, label in _BASE.items():
            free = [
                at_no_cost if arm == "zero_byte" or name != _GAIN else EMPTY for name, (_, at_no_cost) in costs.items()
            ]
            own = [cell(self._base) for cell in seeds]
            missing = arm == "zero_byte" and not self._batch_norm
            found = (Cell(NO_BATCH_NORM) if missing else cell(self._base, arm) for cell in accuracies.values())
            said = [Cell(label), *own, *found, *([EMPTY] * len(free) if missing else free)]
            rows.append([*said, *([EMPTY] * (len(head) - len(said)))])
        for row, pair in zip(self._rows, self._pairs, strict=True):
            means = (cell(row, "adapted") for cell in accuracies.values())
            own = [cell(row) for cell in seeds]
            rows.append([Cell(row.label), *own, *means, *(cell(row) for cell, _ in costs.values()), *pair])
        return Sheet(head, rows, tuple(self.notes()))

    def _accuracies(self) -> dict[str, Callable[[Row, str], Cell]]:
        """Header -> a row's cell, by arm."""
        weathers = dict.fromkeys(chain.from_iterable(run.summary["per_corruption"] for run in self._runs))
        by_weather = {weather: partial(accuracy_in, weather) for weather in weathers}
        return {**by_weather, "fleet mean": fleet_mean, "clear air": clear_air}

    def _costs(self) -> dict[str, tuple[Callable[[Row], Cell], Cell]]:
        """Header -> a row's cell, and what the base alone costs."""
        nothing, no_share = Cell("0", 0.0), Cell("0 %", 0.0)
        found: dict[str, tuple[Callable[[Row], Cell], Cell]] = {
            "bytes up + down": (lambda row: mean_of([r.summary["total_bytes"] for r in row.runs], "{:,.0f}"), nothing),
            "of full, fp32": (partial(share_of, "full_fp32_total_bytes"), no_share),
            "of full, same codec": (partial(share_of, "full_total_bytes"), no_share),
            f"days on {self._link}": (partial(days_on, self._link), nothing),
            _GAIN: (self._gain, no_share if self._full else EMPTY),
        }
        if (asked := self._runs[0].took) is not None:
            found[to_reach(asked["accuracy"])] = took, EMPTY
        return found

    def _gain(self, row: Row) -> Cell:
        """Of each seed's own gain; seeds that full fine-tuning lacks, or in which it gains nothing, are left out."""
        shares = self._shares(row)
        return EMPTY if all(share is None for share in shares) else mean_of_some(shares, "{:.0f}", " %")

    def _shares(self, row: Row) -> list[float | None]:
        """By seed, in per cent, of full fine-tuning's gain on the same fleet; None where it is not known."""
        full = [self._full_on.get(run.fleet) for run in row.runs]
        found = [
            None if its is None else gain_recovered(run.summary, its[1])
            for run, its in zip(row.runs, full, strict=True)
        ]
        return [None if share is None else 100 * share for share in found]

    def notes(self) -> Iterator[str]:
        """What a reader must know beside the numbers."""
        yield _cameras(self._runs)
        yield '"of full": bytes over those of full fine-tuning, in fp32 and under the codec of the row.'
        yield downlinks(run.summary for run in self._runs)
        if any(len(row.runs) > 1 for row in self._rows):
            yield "a ± b: mean over the seeds, half of its 95 % confidence interval (Student's t)."
        yield from _sampled(self._rows)
        yield from (f"{run.folder}: {said}" for run in self._runs if (said := went_on(run.summary)))
        if any(self._pairs):
            yield from paired_notes(self._other.label)
        elif len(self._rows) > 1:
            yield no_test(self._other.label)
        if len({tuple(row.seeds) for row in self._rows}) > 1:
            yield "The rows are not of the same seeds: some of their differences may be chance."
        yield from self._gain_notes()
        yield from self._base_notes()
        if any(run.summary["full_fp32_total_bytes"] is None for run in self._runs):
            yield '"-" under "of full": the version that made the run did not record it.'

    def _gain_notes(self) -> Iterator[str]:
        if not self._full:
            return
        if not self._batch_norm:
            yield f'"{_GAIN}" is over "{_BASE["source"]}": the network has no batch norm to adapt without sending.'
        if len(self._full) > 1:
            held = dict.fromkeys(its[0].label for run in self._runs if (its := self._full_on.get(run.fleet)))
            yield f'"{_GAIN}" is of the gain of {", or ".join(held)}{", on the same fleet" * (len(held) > 1)}.'
        if any(map(of_some_seeds, map(self._shares, self._rows))):
            yield SOME_SEEDS
        seeds = {run.seed for row in self._full for run in row.runs}
        for row in self._rows:
            out = [run.seed for run in row.runs if run.fleet not in self._full_on]
            if missing := sorted(set(out) - seeds):
                yield f'"{_GAIN}" of {row.label} leaves out {_named(missing)}, which no run of full fine-tuning has.'
            if missing := sorted(set(out) & seeds):
                yield (
                    f'"{_GAIN}" of {row.label} leaves out {_named(missing)}, for which no run of full '
                    "fine-tuning is on the same fleet."
                )

    def _base_notes(self) -> Iterator[str]:
        """Where the base alone was measured as something else in another run of the same seed."""
        first = {run.seed: run for run in self._base.runs}
        for arm, label in _BASE.items():
            if others := [run.folder for run in self._runs if _digits(run, arm) != _digits(first[run.seed], arm)]:
                yield (
                    f'"{label}" is as {", ".join(run.folder for run in self._base.runs)} measured it; it differs in '
                    f"{', '.join(others)}, whose gain is over its own measurement."
                )


_GAIN = "gain recovered"


def _full(rows: Sequence[Row]) -> list[Row]:
    """The rows of full fine-tuning: that first which gains are held against, where several are of one fleet."""
    full = [row for row in rows if _is_full(row)]
    return sorted(full, key=lambda row: rank_of_full([run.summary for run in row.runs]), reverse=True)


def _is_full(row: Row) -> bool:
    return is_full(row.runs[0].summary)


def _row_of(against: str, rows: Sequence[Row]) -> Row:
    """The row that has the run of a folder."""
    for row in rows:
        if against in (run.folder for run in row.runs):
            return row
    raise ConfigError(
        f"Rows are tested against that of one of the runs; got {against!r}. Give it among the folders too."
    )


def _sampled(rows: Sequence[Row]) -> Iterator[str]:
    """How far means over a sample may be from those over all."""
    largest = {}
    for row in rows:
        errors = [run.summary["standard_error"]["adapted"] for run in row.runs if "standard_error" in run.summary]
        if found := [error for error in errors if error is not None]:
            largest[row.label] = f"{100 * max(found):.2f}"
    if largest:
        each = "; ".join(f"{label} {error}" for label, error in largest.items())
        yield (
            '"fleet mean" is over a sample of cameras or images; the standard error of this sampling, in points, is at '
            f"most: {each}."
        )


def _named(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _seeds(row: Row) -> Cell:
    return Cell(", ".join(map(str, row.seeds)))


def _cameras(runs: Sequence[ComparedRun]) -> str:
    """Over how many cameras means are."""
    found: dict[str, str] = {}
    for run in runs:
        counts = run.summary.get("cameras_measured")
        by_weather = [f"{name} {its['of']}" for name, its in counts["per_corruption"].items()] if counts else []
        said = f"{counts['of']} ({', '.join(by_weather)})" if counts else "not known, as an older version made the run"
        found.setdefault(said, run.folder)
    each = found if len(found) == 1 else [f"{said} in {folder}" for said, folder in found.items()]
    return f"Cameras in each mean: {'; '.join(each)}. In brackets after a mean: how many were measured, if not all."


def _digits(run: ComparedRun, arm: str) -> str:
    return fleet_mean(Row("", [run]), arm).text
