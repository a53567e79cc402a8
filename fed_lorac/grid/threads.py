"""The executor of threads: blocks train side by side in this process. Knows attempts and threads; not what an app does.

Threads share the images, the base and Python itself, so they start at once and take little memory. PyTorch computes
without Python's lock, but a step's Python is done by one thread at a time: beyond a few threads they wait for each
other, and workers on Ray go on scaling.
"""

import ctypes
import threading
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import torch

from fed_lorac.client.request import ClientReply
from fed_lorac.grid.executor import AHEAD, Attempt, Block, BlockApp, FailureLog, RetryQueue, checked, raised

__all__ = ["ThreadExecutor"]

_AGAIN_S = 0.5  # seconds between looks at who has left the app, or has only now come into it


class _Abandoned(BaseException):
    """Raised in a thread whose answer nobody waits for any more."""


class ThreadExecutor:
    """An `Executor` of `workers` threads, which all call one app, each with `threads` CPU threads of PyTorch's.

    A block that raises is asked again camera by camera. One that hangs, or that kills the process, takes the run with
    it, as in `SerialExecutor`. Blocks that are in hand when a run is left are stopped at their next line of Python.
    """

    def __init__(self, app: BlockApp, workers: int, threads: int) -> None:
        self._app, self._workers, self._threads, self._log = app, workers, threads, FailureLog()
        self._at_work: set[int] = set()  # ids of threads that are in the app
        self._leaving = threading.Lock()
        self._pool = self._new_pool()

    def _new_pool(self) -> ThreadPoolExecutor:
        # How many threads PyTorch computes with is each thread's own setting.
        return ThreadPoolExecutor(self._workers, "cameras", torch.set_num_threads, (self._threads,))

    def run(self, blocks: Iterable[Block]) -> Generator[list[ClientReply], None, None]:
        """Each block's replies, in the order of the blocks. What is in hand when it is left early is abandoned."""
        queue, doing = RetryQueue(blocks, AHEAD * self._workers), dict[Future[list[ClientReply]], Attempt]()
        try:
            while not queue.finished:
                self._hand_out(queue, doing)
                if (replies := queue.due()) is not None:
                    self._hand_out(queue, doing)  # so that nobody waits while the replies are looked at
                    yield replies
                    continue
                for future in wait(doing, return_when=FIRST_COMPLETED).done:
                    self._take_in(queue, doing.pop(future), future)
        finally:
            if doing:
                self._abandon(doing)

    def _hand_out(self, queue: RetryQueue, doing: dict[Future[list[ClientReply]], Attempt]) -> None:
        while len(doing) < self._workers and (attempt := queue.next()) is not None:
            doing[self._pool.submit(self._answer, attempt)] = attempt

    def _answer(self, attempt: Attempt) -> list[ClientReply]:
        me = threading.get_ident()
        self._at_work.add(me)
        try:
            return checked(self._app.answer(attempt.requests, attempt.block.shared), attempt.requests)
        finally:
            with self._leaving:
                self._at_work.discard(me)

    def _take_in(self, queue: RetryQueue, attempt: Attempt, future: Future[list[ClientReply]]) -> None:
        try:
            queue.done(attempt, future.result())
        except Exception as error:
            failure = raised(error)
            self._log.show(failure)
            queue.failed(attempt, failure)

    def _abandon(self, doing: Mapping[Future[list[ClientReply]], Attempt]) -> None:
        """Have every thread leave the app, and wait until it has; then there are fresh ones."""
        for future in doing:
            future.cancel()
        told: set[int] = set()  # once each: what an app does on its way out is not to be stopped
        while wait(doing, timeout=0).not_done:
            with self._leaving:  # nobody leaves meanwhile, so that it is raised in the app and nowhere else
                for thread in self._at_work - told:
                    told.add(thread)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Abandoned))
            wait(doing, timeout=_AGAIN_S)
        self._pool.shutdown()
        self._pool = self._new_pool()

    def close(self) -> None:
        """Let the threads go; none is at work."""
        self._pool.shutdown()
