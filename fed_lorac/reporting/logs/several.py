"""The logs that `run.log` names, told what a run's watch is told. Knows watches; not what they write."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fed_lorac.config import Config, RunConfig
from fed_lorac.errors import RunError, one_line
from fed_lorac.records.ledger import Row
from fed_lorac.registry import LOGS
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.settings import Scalar, items

__all__ = ["check_logs", "logged"]


def check_logs(run: RunConfig) -> None:
    """Raise `RunError` where the library of a log is not installed."""
    for name in items(run.log):
        if name in LOGS.names and not _installed(name):
            raise RunError(
                f'run.log = "{name}" writes through the library {name}, which is not installed. '
                f'Run pip install "fed-lorac[{name}]", or leave run.log empty.'
            )


def _installed(library: str) -> bool:
    """Whether there is such a package, and not only a folder of that name, such as wandb makes where it is used."""
    found = find_spec(library)
    return found is not None and found.origin is not None


@contextmanager
def logged(config: Config, folder: Path, watch: Watch, *, goes_on: bool) -> Iterator[Watch]:
    """What is told how a run goes: the watch, and every log that the config names, opened here and closed at the end.

    Raises:
        RunError: a log's library is not installed.
        ConfigError: a log of somebody else's cannot be imported, or built.
    """
    check_logs(config.run)
    names = dict.fromkeys(items(config.run.log))
    both = _Logged(watch, {name: LOGS.make(name, **config.run.settings("log", name)) for name in names})
    try:
        both.begun(config.to_flat(), folder, goes_on=goes_on)
        yield both if names else watch
    finally:
        both.closed()


class _Logged(Watch):
    """A watch with logs beside it. A log that fails later than at the beginning is left out from there on: what a run
    measures does not hang on who is told of it."""

    def __init__(self, watch: Watch, logs: dict[str, Watch]) -> None:
        self._watch, self._logs = watch, logs

    def begun(self, config: Mapping[str, Scalar], folder: Path, *, goes_on: bool) -> None:
        for one in (self._watch, *self._logs.values()):
            one.begun(config, folder, goes_on=goes_on)

    def phase(self, what: str, total: int) -> None:
        self._watch.phase(what, total)
        self._tell("phase", what, total)

    def resumed(self, rounds: int) -> None:
        self._watch.resumed(rounds)
        self._tell("resumed", rounds)

    def reply(self) -> None:
        self._watch.reply()
        self._tell("reply")

    def round(self, row: Row, of: int) -> None:
        self._tell("round", row, of)
        self._watch.round(row, of)

    def ended(self, summary: Mapping[str, Any]) -> None:
        self._tell("ended", summary)
        self._watch.ended(summary)

    def closed(self) -> None:
        self._tell("closed")
        self._watch.closed()

    def _tell(self, what: str, *said: object) -> None:
        for name, log in tuple(self._logs.items()):
            try:
                getattr(log, what)(*said)
            except Exception as error:  # of a library, of its server, of somebody else's class
                del self._logs[name]
                logging.getLogger(__name__).warning(
                    "The log %r failed, and the run goes on without it: %s.", name, one_line(error)
                )
