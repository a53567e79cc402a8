"""The executor of one: this process, block after block. Knows apps and attempts; not Ray, nor what an app does."""

from collections.abc import Generator, Iterable

from fed_lorac.grid.executor import Answer, BlockApp, Job
from fed_lorac.grid.retries import Attempt, FailureLog, RetryQueue, checked, raised

__all__ = ["SerialExecutor"]


class SerialExecutor:
    """A `Executor` that works as its answers are asked for, a job at a time.

    A block that raises is asked again camera by camera. One that hangs, or that kills the process, takes the run with
    it: that is what an executor of workers is for.
    """

    def __init__(self, app: BlockApp) -> None:
        self._app, self._log = app, FailureLog()

    def run(self, jobs: Iterable[Job]) -> Generator[list[Answer], None, None]:
        """Each job's answers, in the order of the jobs; the next job is taken when its answers are asked for."""
        queue = RetryQueue(jobs, ahead=1)
        while (attempt := queue.next()) is not None:
            self._try(queue, attempt)
            if (answers := queue.due()) is not None:
                yield answers

    def _try(self, queue: RetryQueue, attempt: Attempt) -> None:
        try:
            answers = self._app.answer(attempt.requests, attempt.job.shared)
            queue.done(attempt, checked(answers, attempt.requests))
        except Exception as error:
            failure = raised(error)
            self._log.show(failure)
            queue.failed(attempt, failure)

    def close(self) -> None:
        """Nobody to let go."""
