"""A study's table for people: an arm a row, mean and interval over its seeds. Knows a study's rows; not what a run
computes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from fed_lorac.errors import ConfigError
from fed_lorac.records.summaries import downlinks
from fed_lorac.reporting.alike import ComparedRun, Row, changed_bases, scores_of
from fed_lorac.reporting.cells import SOME_SEEDS, Cell, mean_of_some, of_some_seeds, to_reach, took
from fed_lorac.reporting.gain import is_full, is_in_fp32
from fed_lorac.reporting.paired import Scores
from fed_lorac.reporting.sheet import Sheet
from fed_lorac.reporting.tested import CHANCE, DIFFERENCE, no_test, paired_cells, paired_notes
from fed_lorac.studies.result import StudyResult
from fed_lorac.studies.search import HALVING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["study_table"]

_MEASURED: dict[str, tuple[str, str, float, str]] = {
    "accuracy": ("accuracy", "{:.1f}", 100, ""),
    "clear air": ("accuracy_clean", "{:.1f}", 100, ""),
    "zero-byte": ("zero_byte_accuracy", "{:.1f}", 100, ""),
    "over the rounds": ("accuracy_over_rounds", "{:.1f}", 100, ""),
    "zero-byte, over the rounds": ("zero_byte_over_rounds", "{:.1f}", 100, ""),
    "gain, over the rounds": ("gain_over_rounds", "{:.0f}", 100, " %"),
    "online": ("online_accuracy", "{:.1f}", 100, ""),
    "gain recovered": ("gain_recovered", "{:.0f}", 100, " %"),
    "bytes up + down": ("total_bytes", "{:,.0f}", 1, ""),
    "of full, fp32": ("share_of_full_fp32", "{:.2f}", 100, " %"),
    "of full, same codec": ("share_of_full_same_codec", "{:.2f}", 100, " %"),
}
"""Header -> the column, how a value is written, what it is multiplied by, and its unit."""

_WHERE_MEASURED = ("accuracy_over_rounds", "zero_byte_over_rounds", "gain_over_rounds", "online_accuracy")
"""Columns that a table has where a run of its study has them."""

_GAINS = ("gain_recovered", "gain_over_rounds")

Place = tuple[str, ...]
"""An arm and a point of the grid, as text."""
Runs = Sequence[ComparedRun]


def study_table(study: StudyResult, against: str | None = None, target: float | None = None) -> Sheet:
    """Each arm and point of the grid is a row: the mean over its seeds, half of the 95 % interval, and whether it
    differs camera by camera from the arm `against` (None: full fine-tuning, else the first arm) over the same fleet, at
    the same point of the grid where there is one. With a `target`, also the bytes until that accuracy (0 to 1) was
    first measured.

    Failed runs and runs to come are counted in the column of seeds; failed ones are named below the table.

    Raises:
        ConfigError: the study has no such arm.
        RunError: a run of it is damaged.
    """
    runs = study.runs
    point = [name for name in runs.columns if "." in name]
    groups = list(runs.groupby(["arm", *point], sort=False, dropna=False))
    places = [tuple(map(str, key)) for key, _ in groups]
    done = [_runs_of(study, group, target) for _, group in groups]
    other = _other([arm for arm, *_ in places], done, against)
    pairs = paired_cells([_pair(place, its, other, places, done) for place, its in zip(places, done, strict=True)])
    measured = {
        name: how
        for name, how in _MEASURED.items()
        if how[0] not in _WHERE_MEASURED or (how[0] in runs and runs[how[0]].notna().any())
    }
    asked = [] if target is None else [to_reach(target)]
    head = ["arm", *point, "seeds", *measured, *asked, *([DIFFERENCE, CHANCE] if any(pairs) else [])]
    rows = [
        [*map(_said, key), *_cells(group, measured.values()), *([took(Row("", its))] if asked else []), *pair]
        for (key, group), its, pair in zip(groups, done, pairs, strict=True)
    ]
    full = sum(bool(its) and is_full(its[0].summary) for its in done)
    changed = changed_bases(run for its in done for run in its)
    gains = [_floats(_done(group)[column]) for _, group in groups for column in _GAINS if column in group]
    tested = [*paired_notes(other)] if any(pairs) else _untested(other, places, done)
    return Sheet(head, rows, (*_notes(study, tested, gains, several_full=full > 1), *changed))


def _pair(
    place: Place, own: Runs, other: str, places: Sequence[Place], done: Sequence[Runs]
) -> tuple[Scores, Scores] | None:
    """A row's scores, and those of the other arm: of the point that is most like the row's, where several are of one
    fleet."""
    if place[0] == other:
        return None
    of_other = [k for k, its in enumerate(places) if its[0] == other]
    nearest = sorted(of_other, key=lambda k: sum(a != b for a, b in zip(places[k], place, strict=True)))
    return scores_of(own), scores_of(run for k in nearest for run in done[k])


def _runs_of(study: StudyResult, group: "pd.DataFrame", target: float | None) -> Runs:
    return [ComparedRun.read(study.run(digest).path, target) for digest in _done(group)["run"]]


def _other(arms: Sequence[str], done: Sequence[Runs], against: str | None) -> str:
    """The arm that the others are tested against."""
    if against is not None and against not in arms:
        raise ConfigError(f"Arms are tested against one of them: {', '.join(dict.fromkeys(arms))}; got {against!r}.")
    full = [arm for arm, runs in zip(arms, done, strict=True) if runs and is_full(runs[0].summary)]
    exact = [arm for arm, runs in zip(arms, done, strict=True) if arm in full and runs and is_in_fp32(runs[0].summary)]
    return against or next(iter([*exact, *full, *arms]))


def _untested(other: str, places: Sequence[Place], done: Sequence[Runs]) -> Iterator[str]:
    """Why no row is tested, where there are rows to test."""
    if {arm for arm, *_ in places} == {other} or not any(done):
        return
    begun = any(runs for (arm, *_), runs in zip(places, done, strict=True) if arm == other)
    yield no_test(other) if begun else f'No paired test: "{other}" has no finished run.'


def _notes(
    study: StudyResult, tested: Iterable[str], gains: Iterable[Sequence[float]], *, several_full: bool
) -> Iterator[str]:
    """What a reader must know beside the numbers.

    `tested`: how rows are tested, or why none is. `gains`: each row's, by seed, nan where one is not known.
    """
    yield "Accuracy in per cent. a ± b: mean over the seeds, half of its 95 % confidence interval (Student's t)."
    yield '"of full": bytes over those of full fine-tuning, in fp32 and under the codec of the row.'
    if several_full:
        yield (
            '"gain recovered" is the share of the gain of full fine-tuning on the same fleet (in fp32, with the '
            "settings that are most accurate over the seeds)."
        )
    if any(map(of_some_seeds, gains)):
        yield SOME_SEEDS
    ways = study.runs.get("downlink")  # which older versions did not record
    if ways is not None:
        yield downlinks({"downlink": way} for way in ways.dropna())
    yield from tested
    yield from _tuned(study)
    yield from _edges(study)
    runs = study.runs
    yield from (
        f"failed: {row.arm}, seed {row.seed}: {row.error}" for row in runs[runs.status == "failed"].itertuples()
    )


def _tuned(study: StudyResult) -> Iterator[str]:
    """What was tuned, with what budget, and on which images."""
    if (said := study.tuned) is None:
        return
    tried = "; ".join(
        [_values(said["tried"]), *(f"{arm}: {_values(its)}" for arm, its in said.get("tried_by_arm", {}).items())]
    )
    rounds, shares = (" or ".join(f"{value:g}" for value in said[key]) for key in ("rounds", "validation_share"))
    how = {"grid": "every value", HALVING: "drawn, the better third of them three times as long"}
    yield (
        f"Tuned for each arm and point of the grid: {tried}; {said['values']} values, "
        f"{how.get(said['search'], 'drawn')}, in runs of {rounds} rounds with seed {said['seed']}. Chosen on a share "
        f"of {shares} of each camera's own training images, which it did not train on."
    )


def _values(tried: Mapping[str, str | list[str]]) -> str:
    return ", ".join(f"{key} ({its if isinstance(its, str) else ', '.join(its)})" for key, its in tried.items())


def _edges(study: StudyResult) -> Iterator[str]:
    """Values that tuning chose at the end of those that it tried, where no other was as good: a better one may lie
    beyond."""
    if study.tuning is None:
        return
    for arm, chosen in study.runs.groupby("arm", sort=False):
        tried = study.tuning[study.tuning.arm == arm]
        ended = tried.status.isin(["finished", "stopped"]).all()
        for key in (name for name in tried.columns if "." in name and name in chosen.columns and ended):
            values, best = (_numbers(table[key]) for table in (tried, chosen))
            equal = tried[tried.accuracy == tried.accuracy.max()][key].nunique() > 1
            if best < values and not equal:
                for end, more in ((min(values), "smaller"), (max(values), "larger")):
                    if end in best:
                        yield f"{arm}: the best {key} is at the end of those tried, {end:g}; try {more} ones."


def _numbers(values: "pd.Series[Any]") -> set[Real]:
    return {value for value in values.dropna() if isinstance(value, Real) and not isinstance(value, bool)}


def _cells(group: "pd.DataFrame", measured: Iterable[tuple[str, str, float, str]]) -> list[Cell]:
    done = _done(group)
    seeds = f"{len(done)}" if len(done) == len(group) else f"{len(done)} of {len(group)}"
    return [
        Cell(seeds),
        *(
            mean_of_some([by * value for value in _floats(done[column])], form, unit)
            for column, form, by, unit in measured
        ),
    ]


def _done(group: "pd.DataFrame") -> "pd.DataFrame":
    return group[group.status == "finished"]


def _floats(column: "pd.Series[Any]") -> list[float]:
    return [float(value) for value in column.astype("Float64").to_numpy(float, na_value=math.nan)]


def _said(value: object) -> Cell:
    import pandas as pd  # noqa: PLC0415

    return Cell("" if pd.isna(value) else str(value))  # type: ignore[call-overload]
