"""What a process is at, for whoever watches. Knows words, steps and whether anyone watches; not what a step does."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Listener", "at", "heard_by", "watched"]

T = TypeVar("T")
Listener = Callable[[str, int, int | None], None]
"""Told what is being done, how many steps of it are, and of how many (None: that is not known)."""

_listeners: list[Listener] = []  # of this process, the innermost last: a worker has none


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Tell `listener` what this process is at, and show no bars beside it."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def at(what: str, done: int = 0, total: int | None = None) -> None:
    """Say what is being done, to whoever listens."""
    if _listeners:
        _listeners[-1](what, done, total)


def watched(steps: Iterable[T], *, total: int, title: str) -> Iterator[T]:
    """Yield the steps, each told to the listener; else with a bar on stderr when that is a terminal (never in a log, a
    pipe or a worker)."""
    if _listeners:
        for done, step in enumerate(steps):
            at(title, done, total)
            yield step
        at(title, total, total)
        return
    if not sys.stderr.isatty():
        yield from steps
        return
    from rich.console import Console  # noqa: PLC0415  (a worker needs no bar, and no import of one)
    from rich.progress import track  # noqa: PLC0415

    yield from track(steps, description=title, total=total, console=Console(stderr=True), transient=True)
