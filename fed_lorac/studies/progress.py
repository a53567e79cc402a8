"""A study's progress at the terminal. Knows rich and trials; not what a run computes."""

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from fed_lorac.studies.definition import Trial
from fed_lorac.studies.watch import StudyWatch

__all__ = ["RichStudyWatch", "WorkPace"]


class RichStudyWatch(StudyWatch):
    """A bar for the runs with the time that is left, and a line for each run that ends."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            _Left(),
            console=console,
            disable=not console.is_terminal,
        )
        self._pace = WorkPace(clock)
        self._task = self._progress.add_task("runs", total=None, left=self._pace.left)
        self._began: dict[str, float] = {}
        self._done = self._total = 0

    def begin(self, trials: int, done: int, work: float) -> None:
        """Say what is there already."""
        self._pace.to_do = work
        self._done, self._total = done, trials
        self._progress.update(self._task, total=trials, completed=done)
        self._say(f"{trials} runs, {done} of them finished before")

    def started(self, trial: Trial) -> None:
        """The run's name on the bar."""
        self._pace.begin()
        self._began[trial.digest] = time.monotonic()
        self._progress.update(self._task, description=trial.name)

    def ended(self, trial: Trial, error: str | None, work: float) -> None:
        """A line that stays above the bar. A run that failed says nothing of how long others take."""
        self._pace.end(work, failed=error is not None)
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


class WorkPace:
    """How long work takes, and so how long that will which is to do: a run of few rounds counts for less than one of
    many. Runs side by side are taken together."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.to_do = 0.0
        self._clock, self._done = clock, 0.0
        self._began: float | None = None
        self._at = 0.0

    def begin(self) -> None:
        """A run begins; the first one is where the time is taken from."""
        if self._began is None:
            self._began = self._clock()

    def end(self, work: float, *, failed: bool = False) -> None:
        """So much work is no longer to do."""
        self.to_do = max(0.0, self.to_do - work)
        if not failed:
            self._done, self._at = self._done + work, self._clock()

    def left(self) -> float | None:
        """Seconds; None until a run has ended."""
        if self._began is None or not self._done:
            return None
        seconds = self.to_do * (self._at - self._began) / self._done
        return max(0.0, seconds - (self._clock() - self._at))


class _Left(ProgressColumn):
    """The time that is left; dashes where nobody knows."""

    def render(self, task: Task) -> Text:
        """As hours, minutes and seconds."""
        left = task.fields["left"]()
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")
