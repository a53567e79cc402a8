"""What a page is about: runs out of their folders, in arms. Knows the folders of runs and studies; not figures."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from fed_lorac.api.result import load_run
from fed_lorac.errors import RunError
from fed_lorac.pages.chart import Row
from fed_lorac.records.ledger import CAMERAS_FILE, ROUNDS_FILE, read_rows
from fed_lorac.records.run_folder import meant
from fed_lorac.records.summaries import Summary, free_accuracy, read_summary
from fed_lorac.reporting.alike import ComparedRun, check_alike, rows_of
from fed_lorac.runtime.files import home_expanded
from fed_lorac.studies.folder import RUNS_TABLE, TUNING_TABLE, holds_study, is_being_tuned
from fed_lorac.studies.result import load_study
from fed_lorac.studies.rows import loose_rows

__all__ = ["Arm", "Reported", "ReportedRun", "read_reported"]


_OVER_ROUNDS = {
    "accuracy": "accuracy_over_rounds",
    "zero_byte_accuracy": "zero_byte_over_rounds",
    "full_accuracy": "full_over_rounds",
    "gain_recovered": "gain_over_rounds",
}
"""Columns of a run's last round, and of its measured rounds."""


@dataclass(frozen=True)
class ReportedRun:
    """A finished run: its row as in study.csv, and its folder, whose files are read when they are first asked for."""

    row: Row
    folder: Path

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.row["seed"])

    @property
    def name(self) -> str:
        """What hovering over it says first."""
        return f"seed {self.seed}, run {self.row['run']}"

    @cached_property
    def summary(self) -> Summary:
        """summary.json."""
        return read_summary(self.folder)

    @cached_property
    def rounds(self) -> list[Row]:
        """rounds.jsonl."""
        return read_rows(self.folder / ROUNDS_FILE).rows

    @cached_property
    def cameras(self) -> list[Row]:
        """cameras.jsonl."""
        return read_rows(self.folder / CAMERAS_FILE).rows


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone, at least one. `look`: the number of its colour and shape."""

    label: str
    runs: Sequence[ReportedRun]
    look: int = 0
    not_finished: int = 0

    def values(self, column: str) -> list[Any]:
        """What each run's row has."""
        return [run.row[column] for run in self.runs]


@dataclass(frozen=True)
class Tuning:
    """What a study tuned: the settings that it tried values of, and its tuning runs, each with the label of its arm and
    point of the grid as `arm`."""

    settings: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Reported:
    """Everything a page is about: arms with their finished runs, those that send least first. `waiting`: runs of its
    studies that have not ended, be they of these arms or of others."""

    title: str
    folder: Path
    arms: Sequence[Arm]
    errors: Sequence[str] = ()
    remarks: Sequence[str] = ()
    tuning: Sequence[Tuning] = ()
    waiting: int = 0

    @property
    def runs(self) -> list[ReportedRun]:
        """All finished runs."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def sending(self) -> list[Arm]:
        """The arms that send anything."""
        return [arm for arm in self.arms if any(arm.values("total_bytes"))]

    @property
    def seeds(self) -> list[int]:
        """The seeds of all runs."""
        return sorted({run.seed for run in self.runs})

    @cached_property
    def one_fleet(self) -> bool:
        """Whether all runs of a seed share the fleet: the base measures the same on it."""
        facts = {(run.seed, free_accuracy(run.summary), *run.summary["per_corruption"]) for run in self.runs}
        rounds = {run.summary["rounds"] for run in self.runs}
        return len(facts) == len(self.seeds) and len(rounds) == 1

    @property
    def changing(self) -> bool:
        """Whether weather changes from round to round in any of the runs."""
        return any(run.summary.get("schedule", "constant") != "constant" for run in self.runs)

    @property
    def full_bytes(self) -> float | None:
        """What full fine-tuning sends in fp32, the mean over seeds; None: see `by_seed`."""
        return self.by_seed(run.summary["full_fp32_total_bytes"] for run in self.runs)

    def by_seed(self, values: Iterable[float | None]) -> float | None:
        """The mean over the seeds of what all runs of a seed share; None where no run knows it, where runs of a seed
        differ in it, or where they are over several fleets."""
        found = {(run.seed, value) for run, value in zip(self.runs, values, strict=True)}
        known = [value for _, value in found if value is not None]
        return fmean(known) if known and self.one_fleet and len(found) == len(self.seeds) else None

    @property
    def over_rounds(self) -> bool:
        """Whether accuracies here are means over the measured rounds, as weather changes, and not the last round's."""
        means = [run.row["accuracy_over_rounds"] for run in self.runs if "gain_over_rounds" in run.row]
        return len(means) == len(self.runs) and None not in means  # a table of an older version has no such gain

    def column(self, name: str) -> str:
        """Where a run's row has an accuracy or gain that figures compare arms by."""
        return _OVER_ROUNDS.get(name, name) if self.over_rounds else name

    def free_accuracy(self, run: ReportedRun) -> float | None:
        """What the fleet of a run reaches with nothing sent, in the rounds that `column` is of."""
        return free_accuracy(run.summary, over_rounds=self.over_rounds)


def read_reported(paths: Sequence[Path], title: str = "") -> Reported:
    """The runs and studies in these folders.

    Raises:
        RunError: a folder holds neither, none of them has a finished run, or they are on several data sets.
    """
    folders = list(dict.fromkeys(home_expanded(path).absolute() for path in paths))
    studies = [folder for folder in folders if holds_study(folder)]
    runs = [folder for folder in folders if folder not in studies]
    for folder in runs:
        _check_run(folder)
    arms, errors, tuning = list[Arm](), list[str](), list[Tuning]()
    waiting = 0
    for folder, prefix in zip(studies, _prefixes(studies, alone=len(folders) == 1), strict=True):
        rows = _table(folder, RUNS_TABLE)
        arms += [replace(arm, label=prefix + arm.label) for arm in _arms(folder, rows)]
        errors += [f"{prefix}{_place(row, rows)}, seed {row['seed']}: {row['error']}" for row in rows if row["error"]]
        waiting += sum(row["status"] == "waiting" for row in rows)
        tuning += _tuning(folder, prefix)
    loose, remarks = _loose(runs)
    arms += loose
    if not arms:
        failed = f" {len(errors)} failed: {errors[0].rstrip('.')}." if errors else ""
        raise RunError(
            f"A report is of finished runs; {', '.join(map(str, folders))} has none yet.{failed} Wait for the first, "
            "or go on with `fed-lorac study` or `fed-lorac run --resume`."
        )
    on = {str(run.summary["data"]): run.folder for arm in arms for run in arm.runs}
    if len(on) > 1:
        its = "; ".join(f"{folder} on {data}" for data, folder in on.items())
        raise RunError(f"A report is of runs on one data set, whose accuracies compare; got {its}. Make one for each.")
    ordered = sorted(arms, key=lambda arm: arm.runs[0].row["total_bytes"])
    looks = [replace(arm, look=number) for number, arm in enumerate(ordered)]
    return Reported(title or _title(folders), folders[0], looks, errors, remarks, tuning, waiting)


def _check_run(folder: Path) -> None:
    """Raise `RunError` where no run began, be it that a study is still being tuned."""
    if is_being_tuned(folder):
        raise RunError(
            f"A report is of finished runs; {folder} is a study whose tuning goes on. Wait for its first run."
        )
    if not (folder / ROUNDS_FILE).is_file():
        raise RunError(
            f"A report is about runs ({ROUNDS_FILE} in their folder) and studies ({RUNS_TABLE}.parquet); {folder} "
            f"{'has neither' if folder.is_dir() else 'is not there'}.{meant(folder)} Give the folder that "
            "`fed-lorac run` or `fed-lorac study` names at its end."
        )


def _title(folders: Sequence[Path]) -> str:
    return folders[0].name if len(folders) == 1 else f"{len(folders)} runs and studies"


def _table(folder: Path, name: str) -> list[Row]:
    import pandas as pd  # noqa: PLC0415  (half a second, for those who look at tables)

    table = load_study(folder).runs if name == RUNS_TABLE else pd.read_parquet(folder / f"{name}.parquet")
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in table.to_dict("records")]


def _arms(folder: Path, rows: Sequence[Row]) -> list[Arm]:
    study, groups = load_study(folder), dict[str, list[Row]]()
    for row in rows:
        groups.setdefault(_place(row, rows), []).append(row)
    found = []
    for label, group in groups.items():
        done = [ReportedRun(row, study.run(row["run"]).path) for row in group if row["status"] == "finished"]
        if done:
            found.append(Arm(label, done, not_finished=len(group) - len(done)))
    return found


def _tuning(folder: Path, prefix: str) -> list[Tuning]:
    """What the study in a folder tuned; none where it tuned nothing. Labels have a `prefix`."""
    said = load_study(folder).tuned
    if said is None or not (folder / f"{TUNING_TABLE}.parquet").is_file():
        return []
    tried, rows = list(said["tried"]), _table(folder, TUNING_TABLE)
    named = [{**row, "arm": prefix + _place(row, rows, tried)} for row in rows]
    return [Tuning(tried, named)]


def _place(row: Row, rows: Sequence[Row], tuned: Sequence[str] = ()) -> str:
    """The arm and the settings of the grid that vary within it; what tuning chose is one value, and goes unsaid, and so
    does what it tried."""
    its = [other for other in rows if other["arm"] == row["arm"]]
    varied = [key for key in row if "." in key and key not in tuned and len({other[key] for other in its}) > 1]
    return ", ".join([str(row["arm"]), *(f"{key.rpartition('.')[2]} {row[key]}" for key in varied)])


def _prefixes(studies: Sequence[Path], *, alone: bool) -> list[str]:
    """What stands before the labels of each study's arms on a page that is of other runs too, where it is not `alone`:
    the name of its folder, with as many folders above it as tell it from the others."""

    def own(folder: Path) -> Path:
        ends = (folder.parts[-length:] for length in range(1, len(folder.parts) + 1))
        return Path(*next(end for end in ends if sum(other.parts[-len(end) :] == end for other in studies) == 1))

    return [""] * len(studies) if alone else [f"{own(folder)}: " for folder in studies]


def _loose(folders: Sequence[Path]) -> tuple[list[Arm], list[str]]:
    """Runs that no study holds, in arms as `fed-lorac compare` has them, and what a reader must know of them."""
    loaded = [load_run(folder) for folder in folders]
    remarks = [f"{run.path} is not finished, and left out." for run in loaded if not run.finished]
    compared = [ComparedRun.read(run.path) for run in loaded if run.finished]
    if not compared:
        return [], remarks
    try:
        check_alike(compared)
    except RunError as differ:
        remarks.append(str(differ))
    rows = loose_rows({run.folder: run.summary for run in compared})
    by_folder = {row["run"]: ReportedRun({**row, "run": Path(row["run"]).name}, Path(row["run"])) for row in rows}
    return [Arm(row.label, [by_folder[run.folder] for run in row.runs]) for row in rows_of(compared)], remarks
