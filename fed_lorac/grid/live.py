"""A Flower Grid over another one: replies as they come, a wait that can be ended. Knows messages; not what they say.

Flower's own grids hand out replies when the last one is there, or the time is up, and cannot be told to stop waiting.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from threading import Event

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fed_lorac.errors import kind_of
from fed_lorac.wire.refusals import DROPPED_OUT

__all__ = ["LiveGrid"]

_POLL_S = 0.05


class LiveGrid(Grid):
    """Passes everything on to `grid`; once `stop` is set, whoever waits for replies gets a KeyboardInterrupt."""

    def __init__(self, grid: Grid, stop: Event) -> None:
        self._grid, self._stop = grid, stop
        self._shown: set[str] = set()

    def set_run(self, run: Run) -> None:
        """The run that messages belong to."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node, as `Message(...)` makes it."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that have registered so far."""
        self._check()
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send, and return the ids to ask for replies with."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come to these messages, each handed out once."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Send all, and yield each reply as it comes until none is missing or `timeout` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = set(self._grid.push_messages(messages))
        while waiting:
            self._check()
            # Looked at before pulling: what came in time is handed out even if nobody asked until later.
            late = deadline is not None and time.monotonic() > deadline
            replies = list(self._grid.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            for reply in replies:
                self._show(reply)
                yield reply
            if late:
                return
            if waiting and not replies:
                self._stop.wait(_POLL_S)

    def _show(self, reply: Message) -> None:
        """What a node raised, once for each kind of failure; its traceback is in the log of the node's worker. A camera
        that drops out has raised nothing."""
        if reply.has_content() or reply.error.reason == DROPPED_OUT:
            return
        if (kind := kind_of(reply.error.reason)) not in self._shown:
            self._shown.add(kind)
            logging.getLogger(__name__).error("A camera raised %s", reply.error.reason)

    def _check(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
