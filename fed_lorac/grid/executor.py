"""What a fleet's grid asks of those who do the work: blocks in, replies out. Knows requests; not what is in them, nor
who works where."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fed_lorac.client.request import ClientReply, ClientRequest

__all__ = ["Block", "BlockApp", "Executor"]


@dataclass(frozen=True)
class Block:
    """Cameras that are asked together, in one process.

    `shared` is what all of them need besides, the same object for every block of a round; workers on other machines get
    it once.
    """

    requests: tuple[ClientRequest, ...]
    shared: Any = None


class BlockApp(Protocol):
    """What the nodes run. One lives in each working process, for as long as that does."""

    def answer(self, requests: Sequence[ClientRequest], shared: Any) -> list[ClientReply]:
        """One reply for each request, in their order.

        What a single camera did wrong is a reply with an error in it. An exception is the whole block's failure: the
        executor then asks camera by camera, and one that raises alone is left out.
        """


class Executor(Protocol):
    """Who does the work: this process, or workers on Ray. Every request gets a reply."""

    def run(self, blocks: Iterable[Block]) -> Generator[list[ClientReply], None, None]:
        """Yield each block's replies in the order of the blocks, whatever the order they are done in.

        Blocks are taken from the iterable as there is room for them, never all at once. A camera that cannot be brought
        to reply has an error for a reply and keeps its state.
        """

    def close(self) -> None:
        """Let everyone go, without waiting for anyone who hangs."""
