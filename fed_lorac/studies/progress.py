"""A study's progress at the terminal. Knows rich and trials; not what a run computes."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from fed_lorac.studies.definition import Trial
from fed_lorac.studies.watch import StudyWatch

__all__ = ["RichStudyWatch"]


class RichStudyWatch(StudyWatch):
    """A bar for the runs with the time that is left, and a line for each run that ends."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=24 * 3600.0,
        )
        self._task = self._progress.add_task("runs", total=None)
        self._began: dict[str, float] = {}
        self._done = self._total = 0

    def begin(self, trials: int, done: int) -> None:
        """Say what is there already."""
        self._done, self._total = done, trials
        self._progress.update(self._task, total=trials, completed=done)
        self._say(f"{trials} runs, {done} of them finished before")

    def started(self, trial: Trial) -> None:
        """The run's name on the bar."""
        self._began[trial.digest] = time.monotonic()
        self._progress.update(self._task, description=trial.name)

    def ended(self, trial: Trial, error: str | None) -> None:
        """A line that stays above the bar."""
        self._done += 1
        self._progress.advance(self._task)
        seconds = time.monotonic() - self._began.pop(trial.digest)
        self._say(f"{self._done}/{self._total} {trial.name}: {f'failed: {error}' if error else f'{seconds:.0f} s'}")

    def _say(self, text: str) -> None:
        console = self._progress.console
        console.print(text, highlight=False, markup=False, soft_wrap=not console.is_terminal)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
