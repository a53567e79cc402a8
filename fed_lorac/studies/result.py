"""A study out of its folder, as data frames. Knows a study's tables; not how they came about."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fed_lorac.api.result import Run, load_run
from fed_lorac.errors import RunError
from fed_lorac.reporting.sheet import check_format
from fed_lorac.runtime.files import home_expanded
from fed_lorac.studies.folder import ROUNDS_TABLE, RUNS_TABLE, TUNING_TABLE, holds_study, is_being_tuned, run_folder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StudyResult", "load_study"]


@dataclass(frozen=True, repr=False)
class StudyResult:
    """A study in its folder, finished or not. Tables are read when they are first asked for, and kept."""

    path: Path

    @cached_property
    def runs(self) -> "pd.DataFrame":
        """A row a run: `arm`, `seed`, the point of the grid, bytes, accuracies (0 to 1), `gain_recovered`, `status`."""
        return self._table(RUNS_TABLE)

    @cached_property
    def rounds(self) -> "pd.DataFrame":
        """A row a finished run and round: `arm`, `seed`, the point of the grid, then the run's own columns."""
        return self._table(ROUNDS_TABLE)

    @cached_property
    def tuning(self) -> "pd.DataFrame | None":
        """A row a tuning run, with the columns of `runs`; None where nothing was tuned."""
        return self._table(TUNING_TABLE) if (self.path / f"{TUNING_TABLE}.parquet").exists() else None

    @cached_property
    def tuned(self) -> Mapping[str, Any] | None:
        """What tuning tried, in how many runs and rounds, and on which images; None where nothing was tuned."""
        try:
            found = json.loads((self.path / f"{TUNING_TABLE}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def run(self, digest: str) -> Run:
        """The run of a row, by what its column `run` says.

        Raises:
            RunError: the study has no such run, or it has not begun.
        """
        there = run_folder(self.path, digest)
        if there is None:
            raise RunError(f"A study's runs are named by its column `run`; {self.path} has no {digest!r}.")
        return load_run(there)

    def table(self, format: str = "markdown", against: str | None = None, target: float | None = None) -> str:
        """The study's table: an arm and point of the grid a row, means over seeds, both shares of full fine-tuning's
        bytes, and whether arms differ camera by camera.

        Args:
            format: "markdown", "csv" or "latex", as `fed_lorac.compare` writes them.
            against: the arm that the others are tested against; None: full fine-tuning, else the first.
            target: also the bytes until this accuracy, 0 to 1, was first measured.

        Raises:
            ConfigError: there is no such format, or arm.
        """
        from fed_lorac.studies.table import study_table  # noqa: PLC0415  (it knows this class)

        check_format(format)
        return study_table(self, against, target).written(format)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        counts = self.runs["status"].value_counts()
        return f"<Study {self.path}: {', '.join(f'{number} {status}' for status, number in counts.items())}>"

    def _repr_html_(self) -> str:
        """The study's table, for a notebook."""
        from fed_lorac.studies.table import study_table  # noqa: PLC0415

        return study_table(self).as_html()

    def _table(self, name: str) -> "pd.DataFrame":
        import pandas as pd  # noqa: PLC0415  (half a second, for those who look at tables)

        try:
            return pd.read_parquet(self.path / f"{name}.parquet")
        except (OSError, ValueError) as error:
            raise RunError(f"A study's tables must be whole; {self.path / name}.parquet: {error}.") from error


def load_study(path: str | PathLike[str]) -> StudyResult:
    """The study in a folder, finished or not.

    Raises:
        RunError: no study began there.
    """
    folder = home_expanded(Path(path)).absolute()
    if is_being_tuned(folder):
        raise RunError(
            f"A study's table is of its runs; {folder} is a study whose tuning goes on. Wait for its first run."
        )
    if not holds_study(folder):
        raise RunError(
            f"A study has {RUNS_TABLE}.parquet in its folder; {folder} has none. Give the folder that "
            "`fed-lorac study` names at its end."
        )
    return StudyResult(folder)
