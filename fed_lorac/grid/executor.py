"""The contract of executors (blocks in, replies out), which blocks are tried again, and the executor of
one process. Knows requests and failures; not what a message says, nor who works where.

A block whose worker dies or hangs is tried once more as it is: the same grouping gives the same bytes. One that fails
again, or that raises, which it would do again, is asked camera by camera; who fails alone is left out.
"""

import logging
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.errors import FedLoracError, kind_of, one_line

__all__ = [
    "AHEAD",
    "Attempt",
    "Block",
    "BlockApp",
    "Executor",
    "Failure",
    "FailureLog",
    "RetryQueue",
    "SerialExecutor",
    "checked",
    "left_out",
    "next_attempts",
    "raised",
]

AHEAD = 2
"""Open blocks a worker: one in hand, and one that waits for its turn to be given back."""


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
        """Stop all workers, without waiting for one that hangs."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt gave no replies: one line for the ledger, and a traceback where there is one."""

    kind: Literal["raised", "died", "late"]
    reason: str
    details: str = ""


@dataclass(frozen=True)
class Attempt:
    """One try at some of a block's requests: all of them together, or one alone.

    `number` is the block's, in the order of the blocks; `places` are positions among its requests.
    """

    number: int
    block: Block = field(repr=False)
    places: tuple[int, ...]
    losses: int = 0  # how often a worker was lost over these requests

    @property
    def requests(self) -> tuple[ClientRequest, ...]:
        """The requests that are tried."""
        return tuple(self.block.requests[place] for place in self.places)


def raised(error: BaseException) -> Failure:
    """The failure of an app that raised, with the error's own traceback; an error of ours says all by itself."""
    details = "" if isinstance(error, FedLoracError) else "".join(traceback.format_exception(error))
    return Failure("raised", one_line(error), details)


def next_attempts(attempt: Attempt, failure: Failure) -> list[Attempt]:
    """What is tried after a failure; nothing where a camera has failed for good."""
    if failure.kind != "raised":
        attempt = replace(attempt, losses=attempt.losses + 1)
        if attempt.losses < 2:
            return [attempt]
    alone = [replace(attempt, places=(place,), losses=min(1, attempt.losses)) for place in attempt.places]
    return alone if len(alone) > 1 else []


def checked(replies: Sequence[ClientReply], requests: Sequence[ClientRequest]) -> list[ClientReply]:
    """The replies, if there is one for each request."""
    if len(replies) != len(requests):
        raise ValueError(f"An app replies each request once; {len(replies)} replies came to {len(requests)} requests.")
    return list(replies)


def left_out(request: ClientRequest, failure: Failure) -> ClientReply:
    """The reply of a node that has none: an error that says why, and the state that it had."""
    code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION if failure.kind == "raised" else ErrorCode.CLIENT_APP_CRASHED
    return ClientReply(Message(Error(code, failure.reason), reply_to=request.message), request.state)


class RetryQueue:
    """Hands out attempts, takes in what became of them, and gives each block's replies back in the order of the blocks.

    Retries come before new blocks. At most `ahead` blocks are open: taken from the iterable, and not yet given back.
    """

    def __init__(self, blocks: Iterable[Block], ahead: int) -> None:
        self._blocks = enumerate(blocks)
        self._ahead = ahead
        self._again: deque[Attempt] = deque()
        self._open: dict[int, list[ClientReply | None]] = {}  # block's number -> replies, in the blocks' order
        self._taken: tuple[int, Block] | None = None  # the next block, where it was looked at already

    @property
    def finished(self) -> bool:
        """Whether every block was taken and given back; where none is open, this takes the next, if there is one."""
        return not self._open and not self._has_next()

    def next(self) -> Attempt | None:
        """What to try now; None while there is nothing, or no room."""
        if self._again:
            return self._again.popleft()
        if len(self._open) >= self._ahead or not self._has_next():
            return None
        assert self._taken is not None
        (number, block), self._taken = self._taken, None
        self._open[number] = [None] * len(block.requests)
        return Attempt(number, block, tuple(range(len(block.requests))))

    def _has_next(self) -> bool:
        if self._taken is None:
            self._taken = next(self._blocks, None)
        return self._taken is not None

    def done(self, attempt: Attempt, replies: Sequence[ClientReply]) -> None:
        """Take in an attempt's replies; as many as requests."""
        for place, reply in zip(attempt.places, replies, strict=True):
            self._open[attempt.number][place] = reply

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """Take in a failure: others are to be tried, or a camera is left out."""
        again = next_attempts(attempt, failure)
        self._again.extendleft(reversed(again))
        if not again:
            self.done(attempt, [left_out(request, failure) for request in attempt.requests])

    def due(self) -> list[ClientReply] | None:
        """The replies of the next block in order, once it has them all."""
        number = next(iter(self._open), None)
        if number is None or None in self._open[number]:
            return None
        return [reply for reply in self._open.pop(number) if reply is not None]


class FailureLog:
    """Shows each kind of failure once, with its traceback where it has one."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def show(self, failure: Failure) -> None:
        """Log an attempt's failure, unless its like was logged before."""
        if failure.kind == "raised":
            said = f":\n{failure.details}" if failure.details else f" {failure.reason}"
            self._once(logging.ERROR, failure.reason, f"A camera raised{said}")
        else:
            self.note(f"A worker was lost ({failure.reason}). It is replaced, and its cameras are asked again.")

    def note(self, text: str) -> None:
        """Log a warning, unless it was logged before."""
        self._once(logging.WARNING, text, text)

    def _once(self, level: int, kind: str, text: str) -> None:
        if (kind := kind_of(kind)) not in self._shown:
            self._shown.add(kind)
            logging.getLogger(__name__).log(level, "%s", text)


class SerialExecutor:
    """An `Executor` that works as its replies are asked for, a block at a time.

    A block that raises is asked again camera by camera. One that hangs, or that kills the process, takes the run with
    it: that is what an executor of workers is for.
    """

    def __init__(self, app: BlockApp) -> None:
        self._app, self._log = app, FailureLog()

    def run(self, blocks: Iterable[Block]) -> Generator[list[ClientReply], None, None]:
        """Each block's replies, in the order of the blocks; the next block is taken when its replies are asked for."""
        queue = RetryQueue(blocks, ahead=1)
        while (attempt := queue.next()) is not None:
            self._try(queue, attempt)
            if (replies := queue.due()) is not None:
                yield replies

    def _try(self, queue: RetryQueue, attempt: Attempt) -> None:
        try:
            replies = self._app.answer(attempt.requests, attempt.block.shared)
            queue.done(attempt, checked(replies, attempt.requests))
        except Exception as error:
            failure = raised(error)
            self._log.show(failure)
            queue.failed(attempt, failure)

    def close(self) -> None:
        """Nobody to let go."""
