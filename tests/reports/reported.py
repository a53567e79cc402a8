"""Reported bugs as a table: a kind of input, how it is made, and what its user must see. A new report is a new row.

Each row runs the command line in a process of its own, forked from a server that has imported everything already.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from killed import SERVER

__all__ = ["SHORT", "Case", "Seen", "see"]

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


@dataclass(frozen=True)
class Case:
    """One reported input.

    `make` lays its files in an empty folder, which is the process's working directory, and returns the words after
    `fed-lorac`. The output (standard output and error as one, runs of white space as one blank) must hold each of
    `says` and none of `never`; a traceback is never wanted. `check` looks at what was left in the folder.
    """

    kind: str
    make: Callable[[Path], Sequence[str]]
    exit_code: int
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Path], None] = lambda folder: None


@dataclass(frozen=True)
class Seen:
    """What a process left at the terminal, and its exit code."""

    exit_code: int
    text: str


def see(case: Case, folder: Path) -> Seen:
    """Make the input in `folder`, run the command there, and return what its user sees."""
    words, log = list(case.make(folder)), folder.parent / f"{folder.name}.log"
    child = SERVER.Process(target=_run, args=(words, folder, log, dict(os.environ) | dict(case.environment)))
    child.start()
    child.join()
    assert child.exitcode is not None
    return Seen(child.exitcode, " ".join(log.read_text(encoding="utf-8", errors="replace").split()))


def _run(words: list[str], folder: Path, log: Path, environment: dict[str, str]) -> None:
    """Become `fed-lorac WORDS` in `folder`, with a terminal of 200 columns that is a file."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment | {"COLUMNS": "200"})
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))
    sys.argv = ["fed-lorac", *words]
    from fed_lorac import cli

    cli.main()
