"""What is called as a run goes on: a progress bar, say, or a log. Knows rows of rounds; not how they are shown."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed_lorac.records.ledger import Row
from fed_lorac.runtime.settings import Scalar

__all__ = ["Watch"]


class Watch:
    """Told how a run goes; this one says nothing. One of your own, named in `run.log`, extends it."""

    def begun(self, config: Mapping[str, Scalar], folder: Path, *, goes_on: bool) -> None:
        """The run begins in this folder, or goes on there; `config` has every setting in force, `section.key`."""

    def phase(self, what: str, total: int) -> None:
        """A phase begins that waits for `total` replies."""

    def resumed(self, rounds: int) -> None:
        """The run goes on after so many rounds that an earlier process finished; later ones are run again."""

    def reply(self) -> None:
        """One reply came."""

    def round(self, row: Row, of: int) -> None:
        """A round ended; `row` is what the ledger says of it."""

    def ended(self, summary: Mapping[str, Any]) -> None:
        """The run came to its end, or to Ctrl-C: what summary.json says."""

    def closed(self) -> None:
        """Nothing more comes; the last call, after an error too."""
