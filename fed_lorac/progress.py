"""A run's progress at the terminal. Knows rich and round rows; not cameras or messages."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fed_lorac.ledger import Row
from fed_lorac.rounds import Watch

__all__ = ["RichWatch"]

_PHASES = {"base": "measuring the base", "train": "cameras train", "evaluate": "cameras evaluate"}


class RichWatch(Watch):
    """A bar for the phase at hand, and a line for each round that ended."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._rounds = self._progress.add_task("rounds", total=rounds)
        self._phase = self._progress.add_task("", total=None)

    def phase(self, what: str, total: int) -> None:
        """Begin the phase's bar anew."""
        self._progress.reset(self._phase, total=total, description=_PHASES[what])

    def resumed(self, rounds: int) -> None:
        """The rounds that are done already."""
        self._progress.advance(self._rounds, rounds)
        self._progress.console.print(f"going on after round {rounds}", highlight=False)

    def reply(self) -> None:
        """One more camera."""
        self._progress.advance(self._phase)

    def round(self, row: Row, of: int) -> None:
        """A line that stays above the bars."""
        self._progress.advance(self._rounds)
        self._progress.console.print(round_line(row, of), highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def round_line(row: Row, of: int) -> str:
    """One round in words."""
    accuracy = "not measured" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %"
    counted = f"{row['cameras_counted']} cameras" + ", skipped" * row["skipped"]
    reasons = "".join(f"; {count} left out: {reason}" for reason, count in row["reasons"].items())
    sent = f"{row['uplink_message_bytes'] / 1e3:,.0f} kB up, {row['downlink_message_bytes'] / 1e3:,.0f} kB down"
    return f"round {row['round']:>3}/{of}  accuracy {accuracy}  {counted}  {sent}  {row['seconds']:.1f} s{reasons}"
