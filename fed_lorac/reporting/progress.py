"""A run's progress at the terminal. Knows rich and round rows; not cameras or messages."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import fmean
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
from rich.table import Column
from rich.text import Text

from fed_lorac.data.progress import heard_by
from fed_lorac.records.ledger import Row
from fed_lorac.reporting.watch import Watch

__all__ = ["RichWatch"]

_PHASES = {"base": "measuring the base", "train": "cameras train", "evaluate": "cameras evaluate"}
_IN_A_ROUND = ("train", "evaluate")


class RichWatch(Watch):
    """A bar for the rounds with the time that is left, one for what is being done, and a line for each round.

    Where nobody watches (a log file, a pipe) there are the lines alone.
    """

    def __init__(self, console: Console, rounds: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(width=26, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=16),
            _Count(),
            TimeElapsedColumn(),
            _Left(),
            console=console,
            disable=not console.is_terminal,
        )
        self._pace, self._phase_at = Pace(rounds, clock), 0
        self._rounds = self._progress.add_task("rounds", total=rounds, left=self._pace.left)
        self._doing = self._progress.add_task("starting", total=None)
        self._what, self._replies, self._expected = "starting", 0, 0
        self._listening = ExitStack()

    def at(self, what: str, done: int = 0, total: int | None = None) -> None:
        """What is being done outside rounds."""
        if what != self._what:
            self._begin(what, total)
        self._progress.update(self._doing, completed=done)

    def phase(self, what: str, total: int) -> None:
        """Begin the phase's bar anew."""
        self._replies, self._expected = 0, total
        self._phase_at = _IN_A_ROUND.index(what) if what in _IN_A_ROUND else 0
        if what == "train":
            self._pace.begin()
        self._begin(_PHASES[what], total)

    def resumed(self, rounds: int) -> None:
        """The rounds that are done already."""
        self._pace.done = rounds
        self._progress.update(self._rounds, completed=rounds)
        self._progress.console.print(f"going on after round {rounds}", highlight=False)

    def reply(self) -> None:
        """One more camera."""
        self._replies += 1
        self._progress.advance(self._doing)
        if self._what != _PHASES["base"]:
            part = (self._phase_at + self._replies / max(1, self._expected)) / len(_IN_A_ROUND)
            self._progress.update(self._rounds, completed=self._pace.done + min(part, 0.99))

    def round(self, row: Row, of: int) -> None:
        """A line that stays above the bars."""
        self._pace.end()
        self._progress.update(self._rounds, completed=self._pace.done)
        console = self._progress.console
        console.print(round_line(row, of), highlight=False, markup=False, soft_wrap=not console.is_terminal)

    def _begin(self, what: str, total: int | None) -> None:
        """Another thing is being done; a task that is reset would keep its total where there is none now."""
        self._progress.remove_task(self._doing)
        self._what, self._doing = what, self._progress.add_task(what, total=total)

    def __enter__(self) -> Self:
        self._listening.enter_context(heard_by(self.at))
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.close()
        self._progress.update(self._doing, visible=False)  # what stays is how far the rounds came
        self._progress.stop()


class Pace:
    """How long rounds take, and so how long those will that are to come."""

    def __init__(self, rounds: int, clock: Callable[[], float]) -> None:
        self.rounds, self.done = rounds, 0
        self._clock, self._took = clock, list[float]()
        self._began = clock()

    def begin(self) -> None:
        """A round begins; one that follows another began when that ended."""
        if not self._took:
            self._began = self._clock()

    def end(self) -> None:
        """A round ended."""
        now = self._clock()
        self._took.append(now - self._began)
        self._began, self.done = now, self.done + 1

    def left(self) -> float | None:
        """Seconds: the mean round of this process for each that is to come, less what the present one has had; None
        until a round has ended."""
        if not self._took:
            return None
        each = fmean(self._took)
        running = min(each, self._clock() - self._began) if self.done < self.rounds else 0.0
        return each * (self.rounds - self.done) - running


class _Count(MofNCompleteColumn):
    """So many of so many; nothing where that is not known."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else super().render(task)


class _Left(ProgressColumn):
    """The time that is left, of a task with a field `left`."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        if "left" not in task.fields:
            return Text()
        seconds = task.fields["left"]()
        if seconds is None:
            return Text("-:--:-- left", style="progress.remaining")
        minutes, rest = divmod(round(seconds), 60)
        return Text(f"{minutes // 60:d}:{minutes % 60:02d}:{rest:02d} left", style="progress.remaining")


def round_line(row: Row, of: int) -> str:
    """One round in words."""
    cameras = row["cameras_measured"]
    accuracy = f"{100 * row['accuracy']:.1f} % ({cameras} camera{'s' * (cameras != 1)})" if cameras else "not measured"
    counted = f"{row['cameras_counted']} counted" + ", skipped" * row["skipped"]
    reasons = "".join(f"; {count} left out: {reason}" for reason, count in row["reasons"].items())
    sent = f"{row['uplink_frame_bytes'] / 1e3:,.0f} kB up, {row['downlink_frame_bytes'] / 1e3:,.0f} kB down"
    return f"round {row['round']:>{len(str(of))}}/{of}: {accuracy}, {counted}, {sent}, {row['seconds']:.1f} s{reasons}"
