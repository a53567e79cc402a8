"""One worker's slot: which Ray actor is in it, which block that works on, and its deadline. Knows one Ray actor at a
time; not the others, nor what an app does."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from fed_lorac.grid.executor import Attempt, Failure, raised
from fed_lorac.grid.ray.cluster import Share
from fed_lorac.grid.ray.worker import Orders, Worker

__all__ = ["Doing", "Timeouts", "WorkerSlot"]

_ACTOR: Any = ray.remote(Worker)


@dataclass(frozen=True)
class Timeouts:
    """How long a worker may take to find a place and come up (again as long at each further try, as a busy machine is
    slow every time), to open data and build its app, and to give a sign of life; and how often in a row it may fail to
    begin before its place is given up."""

    arrive_s: float = 60.0
    begin_s: float = 1800.0  # a node's first look at a data set decodes every image
    ping_s: float = 60.0
    starts: int = 3


class Doing(Enum):
    """What a worker is at."""

    ARRIVING = auto()
    BEGINNING = auto()
    FREE = auto()
    ASKED = auto()  # for a sign of life
    WORKING = auto()
    GONE = auto()  # given up


class WorkerSlot:
    """A place among the workers, held by one actor after another. Who watches it calls `collect` when `ref` is ready,
    or lets the actor go when `deadline` has passed."""

    def __init__(self, number: int, orders: "ray.ObjectRef[Orders]", share: Share, timeouts: Timeouts) -> None:
        self.number, self.timeouts = number, timeouts
        self._orders, self._share = orders, share
        self._actor: Any = None
        self.doing = Doing.GONE
        self.attempt: Attempt | None = None
        self.ref: ray.ObjectRef[Any] | None = None
        self.deadline = self.limit_s = 0.0
        self.failed_starts = 0
        self.node = "a node not yet known"

    def hire(self) -> None:
        """A new worker, in place of whoever is here."""
        self.dismiss()
        self._actor = _ACTOR.options(**self._share, max_restarts=0, scheduling_strategy="SPREAD").remote()
        self._ask(Doing.ARRIVING, lambda actor: actor.where.remote(), self.timeouts.arrive_s * (1 + self.failed_starts))

    def begin(self, node: str) -> None:
        """Have the worker, which has arrived on this node, examine it and build its app."""
        self.node = node
        self._ask(Doing.BEGINNING, lambda actor: actor.begin.remote(self._orders), self.timeouts.begin_s)

    def ping(self) -> None:
        """Ask a free worker whether it is still there."""
        self._ask(Doing.ASKED, lambda actor: actor.ping.remote(), self.timeouts.ping_s)

    def work(self, attempt: Attempt, token: int, kept: list["ray.ObjectRef[Any]"], timeout_s: float) -> None:
        """Give a free worker a block."""
        self.attempt = attempt
        self._ask(Doing.WORKING, lambda actor: actor.work.remote(attempt.requests, token, kept), timeout_s)

    def collect(self) -> Any:
        """What came of what it was asked, or a `Failure`."""
        assert self.ref is not None
        try:
            return ray.get(self.ref)
        except RayTaskError as error:  # outside the app: an answer that cannot be pickled, say
            return raised(error.cause if isinstance(error.cause, Exception) else error)
        except RayError as error:
            return Failure("died", "worker died", str(error))
        finally:
            self.ref = None

    def overdue(self) -> Failure:
        """The failure of a worker whose deadline has passed."""
        return Failure("late", f"no reply within {self.limit_s:g} s")

    def dismiss(self) -> None:
        """Let the worker go, whatever it does; nobody waits for it."""
        if self._actor is not None:
            with suppress(RayError, ValueError):  # gone already
                ray.kill(self._actor)
        self._actor = self.ref = self.attempt = None
        self.doing = Doing.GONE

    def _ask(self, doing: Doing, call: Callable[[Any], Any], limit_s: float) -> None:
        self.doing, self.limit_s, self.deadline = doing, limit_s, time.monotonic() + limit_s
        self.ref = call(self._actor)
