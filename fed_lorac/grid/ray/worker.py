"""What runs in a worker's process: one app, for as long as the process lives. Knows messages and this process; not who
else works, nor what is asked next.

It arrives without PyTorch, data or models, so that it can say which node it is on before any of these fails there.
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.config import Config
from fed_lorac.errors import one_line
from fed_lorac.grid.executor import BlockApp, Failure, checked, raised
from fed_lorac.runtime.allocator import give_back
from fed_lorac.runtime.flower_private import task_identity

if TYPE_CHECKING:
    from fed_lorac.experiment.doctor import Facts

__all__ = ["Orders", "Report", "Worker", "node_name"]


@dataclass(frozen=True)
class Orders:
    """What a worker is told when it begins. `examined`: it is to examine its node for the config first."""

    app: Callable[[], BlockApp]
    config: Config
    examined: bool


@dataclass(frozen=True)
class Report:
    """What a worker found when it began: its node's facts, and why it has no app, if so."""

    facts: "Facts | None"
    failure: Failure | None


class _NotFetchedError(Exception):
    """A worker has lost touch with the cluster's objects."""


class Worker:
    """A Ray actor. Whatever goes wrong in the app comes back as a `Failure`, with its own traceback."""

    def __init__(self) -> None:
        # Ctrl-C reaches every process of the terminal; what it means for the workers, the driver decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._life = ExitStack()
        self._life.enter_context(task_identity())
        self._app: BlockApp | None = None
        self._shared: tuple[int, Any] = (0, None)

    def where(self) -> str:
        """This node's name: the first sign of life."""
        return node_name()

    def ping(self) -> int:
        """A sign of life; the process's id."""
        return os.getpid()

    def begin(self, orders: Orders) -> Report:
        """Examine this node and build the app."""
        facts = None
        try:
            facts = _examined(orders.config) if orders.examined else None
            self._app = orders.app()
            _set_threads(orders.config.run.threads)
        except Exception as error:
            return Report(facts, raised(error))
        give_back()
        return Report(facts, None)

    def work(
        self, requests: Sequence[ClientRequest], token: int, kept: Sequence["ray.ObjectRef[Any]"]
    ) -> list[ClientReply] | Failure:
        """The app's replies. `token` numbers what is shared, which `kept` refers to; nothing is shared where empty."""
        try:
            assert self._app is not None
            return checked(self._app.answer(requests, self._shared_under(token, kept)), requests)
        except _NotFetchedError as error:  # no camera's fault: another worker may reach what this one cannot
            return Failure("died", str(error))
        except Exception as error:
            return raised(error)

    def _shared_under(self, token: int, kept: Sequence["ray.ObjectRef[Any]"]) -> Any:
        """What is shared, fetched once: the same object for every block that comes with the same token. Between two of
        them, what the blocks before are done with goes back: a node has as many heaps as workers."""
        if self._shared[0] != token:
            self._shared = (0, None)  # let the old one go before the new one comes
            give_back()
            try:
                self._shared = (token, ray.get(kept[0]) if kept else None)
            except RayError as error:
                raise _NotFetchedError(f"what all cameras share did not reach it: {one_line(error)}") from error
        return self._shared[1]


def _examined(config: Config) -> "Facts":
    from fed_lorac.experiment.doctor import examine  # noqa: PLC0415

    return examine(config, node_name())


def _set_threads(threads: int) -> None:
    """Results repeat at equal threads only, and a node's environment may ask for others."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(threads)


def node_name() -> str:
    """Host, address and the beginning of Ray's id, by which `ray list nodes` and logs know a node."""
    context = ray.get_runtime_context()
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"{socket.gethostname()} ({address}, {context.get_node_id()[:8]})"
