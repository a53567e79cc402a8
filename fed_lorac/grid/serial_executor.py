"""The executor of one: this process, block after block. Knows apps and attempts; not Ray, nor what an app does."""

from collections.abc import Generator, Iterable

from fed_lorac.client.request import ClientReply
from fed_lorac.grid.executor import Block, BlockApp
from fed_lorac.grid.retries import Attempt, FailureLog, RetryQueue, checked, raised

__all__ = ["SerialExecutor"]


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
