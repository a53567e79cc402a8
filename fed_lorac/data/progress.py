"""A bar for long work. Knows how many steps there are and whether anyone is watching; not what a step does."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["watched"]

T = TypeVar("T")


def watched(steps: Iterable[T], *, total: int, title: str) -> Iterator[T]:
    """Yield the steps, with a bar on stderr when that is a terminal (never in a log, a pipe or a worker)."""
    if not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console  # noqa: PLC0415  (a worker needs no bar, and no import of one)
    from rich.progress import track  # noqa: PLC0415

    yield from track(steps, description=title, total=total, console=Console(stderr=True), transient=True)
