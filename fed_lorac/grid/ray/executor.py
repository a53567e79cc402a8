"""The crew on Ray: long-lived workers that take cohorts, and are replaced when they die or hang. Knows posts and
attempts; not what an app does."""

import logging
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from typing import Any

import ray
from ray.exceptions import RayError

from fed_lorac.config import Config
from fed_lorac.data.progress import at
from fed_lorac.errors import RunError
from fed_lorac.experiment.doctor import Facts, complaints, examine_driver, remarks
from fed_lorac.grid.executor import Answer, CohortApp, Job
from fed_lorac.grid.ray.cluster import check_room, free_room, joined
from fed_lorac.grid.ray.worker import Orders, Report
from fed_lorac.grid.ray.worker_slot import Doing, Patience, Post
from fed_lorac.grid.retries import Attempt, Desk, Trouble, TroubleLog

__all__ = ["Patience", "RayCrew"]

_AHEAD = 2  # open jobs a worker: one in hand, and one that waits for its turn to be given back


class RayCrew:
    """A `Crew` of `run.workers` actors on the cluster that the config names, or on a Ray of this process's own.

    Each builds its app once, by calling `app` (which travels to it by pickle), after it has examined its node for the
    config; the first round begins when all have. `examined=False` leaves the examination out, for apps of others.

    Raises:
        RunError: no cluster, no room for so many workers, or a node that is not fit to take part.
    """

    def __init__(
        self,
        config: Config,
        app: Callable[[], CohortApp],
        *,
        examined: bool = True,
        patience: Patience | None = None,
    ) -> None:
        self._timeout_s, self._log = config.run.cohort_timeout_s, TroubleLog()
        self._cluster, self._posts = ExitStack(), list[Post]()
        self._shared: tuple[Any, int, list[ray.ObjectRef[Any]]] = (None, 0, [])
        self._driver: Facts | None = None
        self._desk: Desk | None = None
        self._last_words = "none was started"
        try:
            share = self._cluster.enter_context(joined(config.run, config.ray.address))
            check_room(share, config.run.workers)
            orders = ray.put(Orders(app, config, examined))
            self._posts = [Post(n + 1, orders, share, patience or Patience()) for n in range(config.run.workers)]
            for post in self._posts:
                post.hire()
            # Meanwhile: what the workers are compared with.
            self._driver = examine_driver(config) if examined else None
            self._muster()
        except BaseException:
            self.close()
            raise

    def run(self, jobs: Iterable[Job]) -> Generator[list[Answer], None, None]:
        """Each job's answers, in the order of the jobs. A run that is left early, or that another follows, is dropped.

        Raises:
            RunError: no worker is left, and none can be started.
        """
        desk = self._desk = Desk(jobs, ahead=_AHEAD * len(self._posts))
        self._drop()
        self._ping()  # whoever died unseen since the last run shall not cost a cohort its first try
        while True:
            self._hand_out(desk)
            if (answers := desk.due()) is not None:
                self._hand_out(desk)  # so that nobody waits while the answers are looked at
                yield answers
                self._check_current(desk)
            elif desk.finished:
                return
            else:
                self._listen()

    def close(self) -> None:
        """Let every worker go, without waiting for any, and leave the cluster."""
        for post in self._posts:
            post.dismiss()
        self._posts = []
        self._cluster.close()

    # Starting

    def _muster(self) -> None:
        """Wait until every place is filled, or given up."""
        at(f"waiting for {len(self._posts)} workers")
        while any(post.doing in (Doing.ARRIVING, Doing.BEGINNING) for post in self._posts):
            self._listen(mustering=True)
        self._check_alive()

    def _start(self, post: Post, found: Any, *, mustering: bool) -> None:
        """A step of a worker's beginning was made, or was not."""
        if post.doing is Doing.ARRIVING and not isinstance(found, Trouble):
            post.begin(found)
            return
        why = self._unfit(post, found)
        if not why:
            post.doing, post.failed_starts = Doing.FREE, 0
        elif mustering and (isinstance(found, Report) or found.kind == "raised"):  # it would say the same again
            raise RunError(why)
        else:
            self._restart(post, why)

    def _unfit(self, post: Post, found: Trouble | Report) -> str:
        """Why a worker cannot take part; empty where it can."""
        if isinstance(found, Trouble):
            if post.doing is Doing.ARRIVING and found.kind == "late":
                return f"it found no place within {post.patience.arrive_s:g} s: {free_room()}"
            return f"on {post.node}, {found.reason}. {_last_line(found.details)}".strip()
        if found.facts is not None and self._driver is not None:
            for remark in remarks(self._driver, found.facts):
                self._log.note(remark)
            if wrong := complaints(self._driver, found.facts):
                return "\n".join(wrong)
        if found.trouble is not None:
            self._log.show(found.trouble)
            return f"Node {post.node} could not build what it is to run: {found.trouble.reason}"
        return ""

    def _restart(self, post: Post, why: str) -> None:
        self._last_words = why
        post.failed_starts += 1
        if post.failed_starts < post.patience.starts:
            post.hire()
            return
        post.dismiss()
        left = sum(other.doing is not Doing.GONE for other in self._posts)
        logging.getLogger(__name__).warning(
            "Worker %d could not be started, and %d of %d are left: %s", post.number, left, len(self._posts), why
        )
        self._check_alive()

    # Working

    def _hand_out(self, desk: Desk) -> None:
        for post in self._posts:
            if post.doing is Doing.FREE:
                if (attempt := desk.next()) is None:
                    return
                token, kept = self._keep(attempt.job.shared)
                post.work(attempt, token, kept, self._timeout_s)

    def _keep(self, shared: Any) -> tuple[int, list["ray.ObjectRef[Any]"]]:
        """A number and a reference for what a job shares; it is put into the cluster once, while it is the same."""
        if shared is None:
            return 0, []
        if self._shared[0] is not shared:
            self._shared = (shared, self._shared[1] + 1, [ray.put(shared)])
        return self._shared[1:]

    def _listen(self, *, mustering: bool = False) -> None:
        """Wait until a worker has something to say, or is overdue, and attend to it."""
        self._check_alive()
        waiting = {post.ref: post for post in self._posts if post.ref is not None}
        until = min(post.deadline for post in waiting.values())
        try:
            ray.wait([*waiting], timeout=max(0.0, until - time.monotonic()))
            ready, _ = ray.wait([*waiting], num_returns=len(waiting), timeout=0)
        except RayError as error:
            raise RunError(f"The cluster must outlive the run; it is gone: {_last_line(str(error))}") from error
        now = time.monotonic()
        for ref, post in waiting.items():
            if post.ref is not ref:
                continue  # asked anew meanwhile
            if ref in ready:
                self._attend(post, post.collect(), mustering=mustering)
            elif now >= post.deadline:
                self._attend(post, post.overdue(), mustering=mustering)

    def _attend(self, post: Post, found: Any, *, mustering: bool) -> None:
        if post.doing in (Doing.ARRIVING, Doing.BEGINNING):
            self._start(post, found, mustering=mustering)
            return
        lost = isinstance(found, Trouble) and found.kind != "raised"
        if post.doing is Doing.WORKING:
            self._conclude(post.attempt, found)
        post.attempt, post.doing = None, Doing.FREE
        if lost:
            post.hire()
            self._ping()  # others may have gone with it: a node, say

    def _conclude(self, attempt: Attempt | None, found: Any) -> None:
        """Bring an attempt's outcome to its desk; nobody waits for that of a run that was dropped."""
        if attempt is None or self._desk is None:
            return
        if isinstance(found, Trouble):
            self._log.show(found)
            self._desk.failed(attempt, found)
        else:
            self._desk.done(attempt, found)

    def _drop(self) -> None:
        """Nobody waits any longer for what the workers are at."""
        for post in self._posts:
            post.attempt = None

    def _ping(self) -> None:
        for post in self._posts:
            if post.doing is Doing.FREE:
                post.ping()

    def _check_current(self, desk: Desk) -> None:
        if self._desk is not desk:
            raise RunError("A crew does one run at a time; this one was left for another. Take all answers first.")

    def _check_alive(self) -> None:
        if all(post.doing is Doing.GONE for post in self._posts):
            raise RunError(f"A run needs a worker, and none is left. The last to go: {self._last_words}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
