"""Reported bugs as a table: a kind of input, how it is made, and what its user must see. A new report is a new row.

Each row runs the command line in a process of its own, forked from a server that has imported everything already.
"""

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from killed import SERVER

__all__ = ["SHORT", "Case", "Seen", "began", "see", "seen"]

SHORT = tuple(
    word
    for setting in (
        "run.rounds=2",
        "local.epochs=1",
        "fleet.cameras=2",
        "fleet.per_round=2",
        "fleet.images=20",
        "fleet.eval_images=10",
    )
    for word in ("-c", setting)
)
"""The quick start at its shortest: `["run", *SHORT]` takes a second or two."""


def nothing() -> None:
    """Leave the process as it is."""


@dataclass(frozen=True)
class Case:
    """One reported input.

    `make` lays its files in an empty folder, which is the process's working directory, and returns the words after
    `fed-lorac`. The output (standard output and error as one, runs of white space as one blank) must hold each of
    `says` and none of `never`; a traceback is never wanted. `check` looks at what was left in the folder. `become` is
    called in the process first: to lower its limits, say.
    """

    kind: str
    make: Callable[[Path], Sequence[str]]
    exit_code: int
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Path], None] = lambda folder: None
    become: Callable[[], None] = nothing


@dataclass(frozen=True)
class Seen:
    """What a process left at the terminal, and its exit code."""

    exit_code: int
    text: str


def see(case: Case, folder: Path) -> Seen:
    """Make the input in `folder`, run the command there, and return what its user sees."""
    log = f"../{folder.name}.log"
    return seen(began(case.make(folder), folder, log, case.environment, case.become), folder / log)


def began(
    words: Sequence[str],
    folder: Path,
    log: str,
    environment: Mapping[str, str] | None = None,
    become: Callable[[], None] = nothing,
) -> BaseProcess:
    """`fed-lorac WORDS` as a process that works in `folder` and writes what it says to `folder/log`."""
    around = {**os.environ, **(environment or {})}
    child = SERVER.Process(target=_run, args=([*words], folder, folder / log, around, become))
    child.start()
    return child


def seen(process: BaseProcess, log: Path) -> Seen:
    """What its user sees once it has ended."""
    process.join()
    assert process.exitcode is not None
    return Seen(process.exitcode, " ".join(log.read_text(encoding="utf-8", errors="replace").split()))


def _run(words: list[str], folder: Path, log: Path, environment: dict[str, str], become: Callable[[], None]) -> None:
    """Become `fed-lorac WORDS` in `folder`, with a terminal of 200 columns that is a file."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment | {"COLUMNS": "200"})
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(said, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))
    # A shell that runs the tests in the background has them ignore Ctrl-C, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["fed-lorac", *words]
    become()
    from fed_lorac import cli

    cli.main()
