"""The executor on Ray: long-lived workers that take blocks, and are replaced when they die or hang. Knows slots and
attempts; not what an app does."""

import logging
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from typing import Any

import ray
from ray.exceptions import RayError

from fed_lorac.client.request import ClientReply
from fed_lorac.config import Config, RayWorkers
from fed_lorac.data.progress import at
from fed_lorac.errors import RunError, last_line
from fed_lorac.experiment.doctor import Facts, complaints, examine_driver, remarks
from fed_lorac.grid.executor import AHEAD, Attempt, Block, BlockApp, Failure, FailureLog, RetryQueue
from fed_lorac.grid.ray.cluster import check_room, free_room, joined
from fed_lorac.grid.ray.worker import Orders, Report
from fed_lorac.grid.ray.worker_slot import Doing, Timeouts, WorkerSlot

__all__ = ["RayExecutor", "Timeouts"]


class RayExecutor:
    """An `Executor` of `run.workers` actors on the cluster that the config names, or on a Ray of this process's own.

    Each builds its app once, by calling `app` (which travels to it by pickle), after it has examined its node for the
    config; the first round begins when all have. `examined=False` leaves the examination out, for apps of others.

    Raises:
        RunError: no cluster, no room for so many workers, or a node that is not fit to take part.
    """

    def __init__(
        self,
        config: Config,
        app: Callable[[], BlockApp],
        *,
        examined: bool = True,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._timeout_s, self._log = config.run.table(RayWorkers).block_timeout_s, FailureLog()
        self._cluster, self._slots = ExitStack(), list[WorkerSlot]()
        self._shared: tuple[Any, int, list[ray.ObjectRef[Any]]] = (None, 0, [])
        self._driver: Facts | None = None
        self._queue: RetryQueue | None = None
        self._last_words = "none was started"
        try:
            share = self._cluster.enter_context(joined(config.run))
            check_room(share, config.run.workers)
            orders = ray.put(Orders(app, config, examined))
            self._slots = [WorkerSlot(n + 1, orders, share, timeouts or Timeouts()) for n in range(config.run.workers)]
            for slot in self._slots:
                slot.hire()
            # Meanwhile: what the workers are compared with.
            self._driver = examine_driver(config) if examined else None
            self._muster()
        except BaseException:
            self.close()
            raise

    def run(self, blocks: Iterable[Block]) -> Generator[list[ClientReply], None, None]:
        """Each block's replies, in the order of the blocks. A run that is left early, or that another follows, ends.

        Raises:
            RunError: no worker is left, and none can be started.
        """
        queue = self._queue = RetryQueue(blocks, AHEAD * len(self._slots))
        self._drop()
        self._ping()  # whoever died unseen since the last run shall not cost a block its first try
        while True:
            self._hand_out(queue)
            if (replies := queue.due()) is not None:
                self._hand_out(queue)  # so that nobody waits while the replies are looked at
                yield replies
                self._check_current(queue)
            elif queue.finished:
                return
            else:
                self._listen()

    def close(self) -> None:
        """Let every worker go, without waiting for any, and leave the cluster."""
        for slot in self._slots:
            slot.dismiss()
        self._slots = []
        self._cluster.close()

    # Starting

    def _muster(self) -> None:
        """Wait until every place is filled, or given up."""
        at(f"waiting for {len(self._slots)} workers")
        while any(slot.doing in (Doing.ARRIVING, Doing.BEGINNING) for slot in self._slots):
            self._listen(mustering=True)
        self._check_alive()

    def _start(self, slot: WorkerSlot, found: Any, *, mustering: bool) -> None:
        """A step of a worker's beginning was made, or was not."""
        if slot.doing is Doing.ARRIVING and not isinstance(found, Failure):
            slot.begin(found)
            return
        why = self._unfit(slot, found)
        if not why:
            slot.doing, slot.failed_starts = Doing.FREE, 0
        elif mustering and (isinstance(found, Report) or found.kind == "raised"):  # it would say the same again
            raise RunError(why)
        else:
            self._restart(slot, why)

    def _unfit(self, slot: WorkerSlot, found: Failure | Report) -> str:
        """Why a worker cannot take part; empty where it can."""
        if isinstance(found, Failure):
            if slot.doing is Doing.ARRIVING and found.kind == "late":
                return f"it found no place within {slot.limit_s:g} s: {free_room()}"
            return f"on {slot.node}, {found.reason}. {last_line(found.details)}".strip()
        if found.facts is not None and self._driver is not None:
            for remark in remarks(self._driver, found.facts):
                self._log.note(remark)
            if wrong := complaints(self._driver, found.facts):
                return "\n".join(wrong)
        if found.failure is not None:
            self._log.show(found.failure)
            return f"Node {slot.node} could not build what it is to run: {found.failure.reason}"
        return ""

    def _restart(self, slot: WorkerSlot, why: str) -> None:
        self._last_words = why
        slot.failed_starts += 1
        if slot.failed_starts < slot.timeouts.starts:
            slot.hire()
            return
        slot.dismiss()
        left = sum(other.doing is not Doing.GONE for other in self._slots)
        logging.getLogger(__name__).warning(
            "Worker %d could not be started, and %d of %d are left: %s", slot.number, left, len(self._slots), why
        )
        self._check_alive()

    # Working

    def _hand_out(self, queue: RetryQueue) -> None:
        for slot in self._slots:
            if slot.doing is Doing.FREE:
                if (attempt := queue.next()) is None:
                    return
                token, kept = self._keep(attempt.block.shared)
                slot.work(attempt, token, kept, self._timeout_s)

    def _keep(self, shared: Any) -> tuple[int, list["ray.ObjectRef[Any]"]]:
        """A number and a reference for what a block shares; it is put into the cluster once, while it is the same."""
        if shared is None:
            return 0, []
        if self._shared[0] is not shared:
            self._shared = (shared, self._shared[1] + 1, [ray.put(shared)])
        return self._shared[1:]

    def _listen(self, *, mustering: bool = False) -> None:
        """Wait until a worker has something to say, or is overdue, and attend to it."""
        self._check_alive()
        waiting = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        until = min(slot.deadline for slot in waiting.values())
        try:
            ray.wait([*waiting], timeout=max(0.0, until - time.monotonic()))
            ready, _ = ray.wait([*waiting], num_returns=len(waiting), timeout=0)
        except RayError as error:
            raise RunError(f"The cluster must outlive the run; it is gone: {last_line(str(error))}") from error
        now = time.monotonic()
        for ref, slot in waiting.items():
            if slot.ref is not ref:
                continue  # asked anew meanwhile
            if ref in ready:
                self._attend(slot, slot.collect(), mustering=mustering)
            elif now >= slot.deadline:
                self._attend(slot, slot.overdue(), mustering=mustering)

    def _attend(self, slot: WorkerSlot, found: Any, *, mustering: bool) -> None:
        if slot.doing in (Doing.ARRIVING, Doing.BEGINNING):
            self._start(slot, found, mustering=mustering)
            return
        lost = isinstance(found, Failure) and found.kind != "raised"
        if slot.doing is Doing.WORKING:
            self._conclude(slot.attempt, found)
        slot.attempt, slot.doing = None, Doing.FREE
        if lost:
            slot.hire()
            self._ping()  # others may have gone with it: a node, say

    def _conclude(self, attempt: Attempt | None, found: Any) -> None:
        """Bring an attempt's outcome to its queue; nobody waits for that of a run that was dropped."""
        if attempt is None or self._queue is None:
            return
        if isinstance(found, Failure):
            self._log.show(found)
            self._queue.failed(attempt, found)
        else:
            self._queue.done(attempt, found)

    def _drop(self) -> None:
        """Nobody waits any longer for what the workers are at."""
        for slot in self._slots:
            slot.attempt = None

    def _ping(self) -> None:
        for slot in self._slots:
            if slot.doing is Doing.FREE:
                slot.ping()

    def _check_current(self, queue: RetryQueue) -> None:
        if self._queue is not queue:
            raise RunError("An executor does one run at a time; this one was left for another. Take all replies first.")

    def _check_alive(self) -> None:
        if all(slot.doing is Doing.GONE for slot in self._slots):
            raise RunError(f"A run needs a worker, and none is left. The last to go: {self._last_words}")
