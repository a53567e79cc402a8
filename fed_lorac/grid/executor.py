"""What a fleet's grid asks of those who do the work: blocks in, answers out. Knows nodes and messages; not what they
say, nor who works where."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import Message, RecordDict

__all__ = ["Answer", "BlockApp", "ClientRequest", "Executor", "Job"]


@dataclass(frozen=True)
class ClientRequest:
    """One node's part in a block: what it was sent, what it remembers, and which camera it plays.

    `state` is the node's own memory. Nobody alters it: an `Answer` brings the one that takes its place.
    """

    camera: int
    message: Message
    state: RecordDict


@dataclass(frozen=True)
class Answer:
    """What a node replies, and what it remembers from now on (where it failed: what it remembered before)."""

    reply: Message
    state: RecordDict


@dataclass(frozen=True)
class Job:
    """A block: nodes whose turns are taken together, in one process.

    `shared` is what all of them need besides, the same object for every job of a round; workers on other machines get
    it once.
    """

    requests: tuple[ClientRequest, ...]
    shared: Any = None


class BlockApp(Protocol):
    """What the nodes run. One lives in each working process, for as long as that does."""

    def answer(self, requests: Sequence[ClientRequest], shared: Any) -> list[Answer]:
        """One answer for each request, in their order.

        What a single node did wrong is an `Answer` with an error in it. An exception is the whole block's failure:
        the executor then asks camera by camera, and who raises alone is left out.
        """


class Executor(Protocol):
    """Who does the work: this process, or workers on Ray. Leaves no one unanswered."""

    def run(self, jobs: Iterable[Job]) -> Generator[list[Answer], None, None]:
        """Yield each job's answers in the order of the jobs, whatever the order they are done in.

        Jobs are taken from the iterable as there is room for them, never all at once. A node that cannot be brought to
        answer has an error for a reply and keeps its state.
        """

    def close(self) -> None:
        """Let everyone go, without waiting for anyone who hangs."""
