"""What is called as a run goes on: a progress bar, say. Knows rows of rounds; not how they are shown."""

from fed_lorac.records.ledger import Row

__all__ = ["Watch"]


class Watch:
    """Told how a run goes; this one says nothing."""

    def phase(self, what: str, total: int) -> None:
        """A phase begins that waits for `total` replies."""

    def resumed(self, rounds: int) -> None:
        """The run goes on after so many rounds that an earlier process finished."""

    def reply(self) -> None:
        """One reply came."""

    def round(self, row: Row, of: int) -> None:
        """A round ended; `row` is what the ledger says of it."""
