"""A run in a notebook: its progress, and its tables as HTML. Knows rich and notebooks; not cameras or messages.

rich's own bars in notebooks need ipywidgets. IPython can replace what a cell shows, and that is enough.
"""

import io
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from fed_lorac.records.ledger import Row
from fed_lorac.reporting.progress import RichWatch, round_line
from fed_lorac.reporting.tables import show_run

__all__ = ["NotebookWatch", "run_as_html", "watch_for"]

_EVERY_S = 0.2
_KEPT_LINES = 5
_WIDTH = 100
_HTML = '<pre style="line-height: 1.2; font-family: monospace">{code}</pre>'


def watch_for(rounds: int) -> RichWatch:
    """The watch of where this process is: a notebook, a terminal, or a log."""
    console = Console(stderr=True)
    return NotebookWatch(rounds) if console.is_jupyter else RichWatch(console, rounds)


def run_as_html(summary: Mapping[str, Any]) -> str:
    """What `fed-lorac show` prints of a run."""
    console = _paper()
    show_run(console, summary)
    return _html(console)


class NotebookWatch(RichWatch):
    """The bars and the last rounds, in one place of the cell's output that is shown anew as they change."""

    def __init__(self, rounds: int) -> None:
        super().__init__(Console(file=io.StringIO(), force_jupyter=False), rounds)
        self._lines: list[str] = []
        self._shown_at = 0.0
        self._place: Any = None

    def at(self, what: str, done: int = 0, total: int | None = None) -> None:
        """What is being done outside rounds."""
        super().at(what, done, total)
        self._show()

    def phase(self, what: str, total: int) -> None:
        """Begin the phase's bar anew."""
        super().phase(what, total)
        self._show()

    def reply(self) -> None:
        """One more camera."""
        super().reply()
        self._show()

    def round(self, row: Row, of: int) -> None:
        """One more line; old ones go, as `Run.rounds` has them all."""
        super().round(row, of)
        self._lines = [*self._lines, round_line(row, of)][-_KEPT_LINES:]
        self._show()

    def _show(self, *, last: bool = False) -> None:
        if self._place is None or (not last and time.monotonic() - self._shown_at < _EVERY_S):
            return
        self._shown_at = time.monotonic()
        self._place.update(self._state(), raw=True)

    def _state(self) -> dict[str, str]:
        """What is to be seen, as notebooks take it."""
        console = _paper()
        for line in self._lines:
            console.print(line, highlight=False, markup=False)
        console.print(self._progress.get_renderable())
        return {"text/plain": console.export_text(clear=False), "text/html": _html(console)}

    def __enter__(self) -> Self:
        from IPython.display import display  # noqa: PLC0415  (who is in a notebook has it)

        super().__enter__()
        self._place = display(self._state(), raw=True, display_id=True)  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._show(last=True)


def _paper() -> Console:
    return Console(record=True, file=io.StringIO(), width=_WIDTH, force_jupyter=False, color_system="truecolor")


def _html(console: Console) -> str:
    return console.export_html(inline_styles=True, code_format=_HTML)
