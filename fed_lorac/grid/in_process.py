"""A Flower Grid whose nodes live in this process, one after another. Knows messages and contexts; not what they say.

No server, no sockets, no Ray: a run starts at once and every message is still a Flower Message with its metadata.
"""

import logging
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import count
from typing import cast

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fed_lorac.flower_private import numbered

__all__ = ["InProcessGrid"]

_FIRST_NODE = 1000  # far from 1, which is the server


class InProcessGrid(Grid):
    """`cameras` nodes that run `client_app` in this process; node ids are fixed, so every run is the same.

    Replies are made as they are asked for, in the order of the messages. A node that raises answers with an error and
    keeps the state it had before. A reply that is made after the timeout is lost, and no node begins after it.
    """

    def __init__(self, client_app: ClientApp, cameras: int, run_config: Mapping[str, object] | None = None) -> None:
        self._app = client_app
        self._shown: set[str] = set()
        self._ids = count(1)
        self._replies: dict[str, Message] = {}
        config = cast(UserConfig, dict(run_config or {}))
        self.contexts = {
            _FIRST_NODE + camera: Context(
                run_id=1,
                node_id=_FIRST_NODE + camera,
                node_config={"partition-id": camera, "num-partitions": cameras},
                state=RecordDict(),
                run_config=config,
            )
            for camera in range(cameras)
        }

    def set_run(self, run: Run) -> None:
        """There is one run only."""

    @property
    def run(self) -> Run:
        """The one run, without an app bundle."""
        return Run.create_empty(run_id=1)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node, as `Message(...)` makes it."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, ascending by camera."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the messages now; their replies wait under the returned ids."""
        replies = [self._deliver(message) for message in messages]
        self._replies |= {reply.metadata.reply_to_message_id: reply for reply in replies}
        return [reply.metadata.reply_to_message_id for reply in replies]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each handed out once."""
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Yield each node's reply as it is made, until `timeout` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for message in list(messages):
            if _passed(deadline):
                return
            reply = self._deliver(message)
            if _passed(deadline):
                return
            yield reply

    def _deliver(self, message: Message) -> Message:
        arrived, context = (
            numbered(message, f"message-{next(self._ids)}"),
            self.contexts.get(message.metadata.dst_node_id),
        )
        if context is None:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "no such node"), reply_to=arrived)
        before = _copied(context.state)
        try:
            # Nodes do not share memory: what one does to its message, no other sees.
            arrived.content = _copied(message.content)
            return self._app(arrived, context)
        except Exception as error:
            context.state = before
            self._show(error)
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return Message(Error(code, f"{type(error).__name__}: {error}"), reply_to=arrived)

    def _show(self, error: Exception) -> None:
        """A node's traceback, once for each kind of trouble."""
        if (text := f"{type(error).__name__}: {error}") not in self._shown:
            self._shown.add(text)
            logging.getLogger(__name__).error("A camera raised:\n%s", "".join(traceback.format_exception(error)))


def _passed(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _copied(records: RecordDict) -> RecordDict:
    """Records of its own; an array's bytes, which nobody can alter, are shared."""
    return RecordDict(
        {key: ArrayRecord(dict(r)) if isinstance(r, ArrayRecord) else deepcopy(r) for key, r in records.items()}
    )
