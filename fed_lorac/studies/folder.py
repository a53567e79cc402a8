"""A study's folder: the runs by what they are, errors, and the tables. Knows files; not who runs what.

STUDY/runs/ARM-...-seedN-DIGEST/   one run's folder; the digest is of every setting that can change its result
STUDY/errors/DIGEST.json           why a run failed, until it is run again
STUDY/study.csv, study.parquet     one row a run
STUDY/rounds.csv, rounds.parquet   one row a run and round
STUDY/tuning.csv, tuning.parquet   one row a tuning run, where there are any
STUDY/tuning.json                  what was tuned: values, runs, rounds, on which images
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from glob import escape
from io import BytesIO
from pathlib import Path

from fed_lorac.config import load_config
from fed_lorac.errors import FedLoracError, UnreadableError
from fed_lorac.records.ledger import ROUNDS_FILE, read_rows
from fed_lorac.records.run_folder import CONFIG_FILE, can_go_on
from fed_lorac.records.summaries import read_summary
from fed_lorac.runtime.files import write_bytes, write_text, writing
from fed_lorac.studies.definition import Trial, run_digest
from fed_lorac.studies.rows import Finding, Row, round_rows, run_rows
from fed_lorac.studies.search import KEPT, Tuning

__all__ = ["ROUNDS_TABLE", "RUNS_TABLE", "TUNING_TABLE", "StudyFolder", "holds_study", "is_being_tuned", "run_folder"]

RUNS_TABLE, ROUNDS_TABLE, TUNING_TABLE = "study", "rounds", "tuning"


def holds_study(folder: Path) -> bool:
    """Whether a study began in this folder."""
    return (folder / f"{RUNS_TABLE}.parquet").is_file()


def is_being_tuned(folder: Path) -> bool:
    """Whether a study's tuning began in this folder, and none of its runs: their table is first written after it."""
    return (folder / f"{TUNING_TABLE}.parquet").is_file() and not holds_study(folder)


def run_folder(study: Path, digest: str) -> Path | None:
    """The folder of the run with a digest in a study's folder; None: it has not begun. An arm that was renamed between
    two parts of a study has its run under both names: what is finished goes first."""
    return _first_finished(sorted((study / "runs").glob(f"*-{escape(digest)}")) if digest else ())


def _first_finished(folders: Iterable[Path]) -> Path | None:
    there = list(folders)
    return next((folder for folder in there if len(there) > 1 and _is_finished(folder)), next(iter(there), None))


@contextmanager
def _passing_over_none() -> Iterator[None]:
    """Go on where a run's file is not there or is none; not where it cannot be read, or a finished run would be made
    anew."""
    try:
        yield
    except UnreadableError:
        raise
    except FedLoracError:
        pass


def _is_finished(folder: Path) -> bool:
    with _passing_over_none():
        return not read_summary(folder)["interrupted"]
    return False


@cache
def _read_today(file: Path) -> str | None:
    """The digest of the config in a run's folder; None where it is none any more."""
    try:
        return run_digest(load_config(file))
    except FedLoracError:
        return None


@dataclass(frozen=True)
class StudyFolder:
    """Where a study's runs and tables are."""

    path: Path

    def of(self, trial: Trial) -> Path:
        """The folder of a run: where one of its digest is, whatever it is called; else where one is whose config, read
        today, is the run's (a setting that came since has its default there), unless it names parts that are not built
        in, whose code may have been another; else a new one's."""
        runs = self.path / "runs"
        if there := run_folder(self.path, trial.digest):
            return there
        if trial.config.outside():
            return runs / trial.folder
        older = (file.parent for file in sorted(runs.glob(f"*-seed{trial.seed}-*/{CONFIG_FILE}")))
        same = (folder for folder in older if _read_today(folder / CONFIG_FILE) == trial.digest)
        return _first_finished(same) or runs / trial.folder

    def finding(self, trial: Trial) -> Finding:
        """How far a run came."""
        folder = self.of(trial)
        with _passing_over_none():
            found = read_summary(folder)
            if not found["interrupted"]:
                return Finding(trial, folder, "finished", seconds=found.get("seconds"))
        with suppress(OSError, ValueError, KeyError):
            error = json.loads(self._error(trial).read_text(encoding="utf-8"))
            return Finding(trial, folder, "failed", str(error["error"]))
        return Finding(trial, folder, "waiting")

    def accuracy_after(self, trial: Trial, rounds: int) -> float | None:
        """What a run found in a round; None where it has not come so far, or failed."""
        with _passing_over_none():
            for row in read_rows(self.of(trial) / ROUNDS_FILE).rows:
                if row["round"] == rounds and self.finding(trial).status != "failed":
                    return float(row["accuracy"]) if row["accuracy"] is not None else None
        return None

    def has(self, trial: Trial, until: int | None = None) -> bool:
        """Whether nothing is left to do of a run that goes to the round `until`; None: to its end."""
        if self.finding(trial).status == "finished":
            return True
        return until is not None and self.accuracy_after(trial, until) is not None

    def rounds_of(self, trial: Trial) -> int:
        """How many rounds a run has made that goes on; 0 where it begins anew."""
        return len(read_rows(self.of(trial) / ROUNDS_FILE).rows) if self.goes_on(trial) else 0

    def ahead(self, trials: Sequence[Trial], rounds: int, *, foreseen: bool = False) -> list[Trial]:
        """For each arm and point of the grid the better third after so many rounds, at least one, in their order: of
        those that came so far, or, where it is `foreseen`, also of the others, as if they were worse."""
        found = {trial.folder: self.accuracy_after(trial, rounds) for trial in trials}
        kept = set[str]()
        for place in dict.fromkeys(trial.place for trial in trials):
            its = [trial for trial in trials if trial.place == place]
            came = [trial for trial in its if foreseen or found[trial.folder] is not None]
            ranked = sorted(came, key=lambda trial: -(found[trial.folder] or 0.0))  # of equals the first
            kept |= {trial.folder for trial in ranked[: max(1, len(its) // KEPT)]}
        return [trial for trial in trials if trial.folder in kept]

    def goes_on(self, trial: Trial) -> bool:
        """Whether a run of it was left in the middle."""
        return can_go_on(self.of(trial))

    def write_error(self, trial: Trial, error: str) -> None:
        """Keep why a run failed."""
        with writing(self.path):
            self._error(trial).parent.mkdir(parents=True, exist_ok=True)
        write_text(self._error(trial), json.dumps({"run": trial.name, "error": error}, indent=2) + "\n")

    def clear_error(self, trial: Trial) -> None:
        """A run is tried again."""
        with writing(self.path):
            self._error(trial).unlink(missing_ok=True)

    def best(self, tuning: Sequence[Trial]) -> dict[str, Mapping[str, object]]:
        """What tuning chose, for each arm and point of the grid that has a finished run: the first of the values with
        the highest accuracy."""
        best: dict[str, tuple[float, Mapping[str, object]]] = {}
        for trial in tuning:
            summary = self.finding(trial).summary
            accuracy = None if summary is None else summary["adapted_accuracy"]
            if accuracy is not None and accuracy > best.get(trial.place, (-1.0, {}))[0]:
                best[trial.place] = accuracy, trial.tuned
        return {place: tuned for place, (_, tuned) in best.items()}

    def write_tuning(self, trials: Sequence[Trial], tuning: Tuning) -> None:
        """The table of the tuning runs, and what they are."""
        findings = [self.tried(trial, tuning) for trial in trials]
        self._write(TUNING_TABLE, run_rows(findings))
        configs = [trial.config.to_flat() for trial in trials]
        said = {
            "search": tuning.search,
            "tried": {key: list(map(str, its)) for key, its in tuning.grid.items()}
            | {key: its.words for key, its in tuning.ranges.items()},
            "tried_by_arm": {
                arm: {key: list(map(str, its)) for key, its in own.items()} for arm, own in tuning.arms.items()
            },
            "values": len(trials) // len({trial.place for trial in trials}),
            "rounds": sorted({config["run.rounds"] for config in configs}),
            "validation_share": sorted({config["fleet.validation_share"] for config in configs}),
            "seed": tuning.seed,
        }
        write_text(self.path / f"{TUNING_TABLE}.json", json.dumps(said, indent=2) + "\n")

    def drop_tuning(self) -> None:
        """What an earlier definition tuned is none of this one's results; its runs stay."""
        with writing(self.path):
            for ending in ("csv", "parquet", "json"):
                (self.path / f"{TUNING_TABLE}.{ending}").unlink(missing_ok=True)

    def tried(self, trial: Trial, tuning: Tuning) -> Finding:
        """A tuning run, which may have been stopped early."""
        found = self.finding(trial)
        early = tuning.stages(trial.config.run.rounds)[:-1]
        if found.status == "waiting" and any(self.accuracy_after(trial, rounds) is not None for rounds in early):
            with _passing_over_none():
                if read_summary(found.folder)["interrupted"]:
                    return replace(found, status="stopped")
        return found

    def write_tables(self, findings: Sequence[Finding]) -> None:
        """Both tables, as CSV and as Parquet."""
        self._write(RUNS_TABLE, run_rows(findings))
        self._write(ROUNDS_TABLE, round_rows(findings))

    def _write(self, name: str, rows: list[Row]) -> None:
        import pandas as pd  # noqa: PLC0415  (half a second, for those who look at tables)

        first = dict.fromkeys(["arm", "seed", *(key for row in rows for key in row if "." in key)])
        others = dict.fromkeys(key for row in rows for key in row if key not in first)
        for key in first:
            if any(isinstance(row.get(key), str) for row in rows):  # beside numbers: a rank, and a list of ranks
                rows = [{**row, key: str(row[key])} if row.get(key) is not None else row for row in rows]
        table, packed = pd.DataFrame(rows, columns=[*first, *others]).convert_dtypes(), BytesIO()
        write_text(self.path / f"{name}.csv", table.to_csv(index=False))
        table.to_parquet(packed, index=False)
        write_bytes(self.path / f"{name}.parquet", packed.getvalue())

    def _error(self, trial: Trial) -> Path:
        return self.path / "errors" / f"{trial.digest}.json"
