"""FleetGrid: a Flower Grid whose nodes work in blocks. Knows messages, nodes and blocks; not the content of messages.

It takes a strategy's messages in their order, cuts them into blocks of `block_size`, has an executor do them, and hands
out replies in the same order: so the same config has the same blocks and the same sums, whoever works and whenever they
are done. No server, no sockets, no polling; every message is still a Flower Message with its metadata.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import count
from operator import itemgetter
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.errors import RunError
from fed_lorac.grid.executor import Block, Executor
from fed_lorac.runtime.flower_private import numbered

__all__ = ["FIRST_NODE", "FleetGrid"]

FIRST_NODE = 1000  # far from 1, which is the server


class FleetGrid(Grid):
    """`cameras` nodes, camera k is node 1000 + k, `executor` does their work; nodes' states stay here, of those that
    were asked something.

    Args:
        executor: who does the work.
        cameras: how many nodes there are.
        block_size: consecutive messages in one block.
        shared: what all nodes need to answer these messages, made once for them (`Block.shared`).
    """

    def __init__(
        self,
        executor: Executor,
        cameras: int,
        *,
        block_size: int = 1,
        shared: Callable[[list[Message]], Any] = lambda messages: None,
    ) -> None:
        self._executor, self._block_size, self._shared = executor, block_size, shared
        self._ids = count(1)
        self._replies: dict[str, Message] = {}
        self.nodes: Sequence[int] = range(FIRST_NODE, FIRST_NODE + cameras)
        self.states: dict[int, RecordDict] = {}
        self.recall: Callable[[int, RecordDict], RecordDict] = lambda node, state: state
        """(node, the state that it came to when it was last asked) -> the state that it is in now."""

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
        return self.nodes

    def restore(self, states: Mapping[int, RecordDict]) -> None:
        """Put nodes' states back, as `states` once had them."""
        self.states.update(states)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Have the messages answered now; their replies wait under the returned ids."""
        replies = list(self.send_and_receive(messages))
        self._replies |= {reply.metadata.reply_to_message_id: reply for reply in replies}
        return [reply.metadata.reply_to_message_id for reply in replies]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each handed out once."""
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Yield each node's reply in the order of the messages, until `timeout` seconds have passed.

        A block is handed out as there is room for it. A reply that is made after the timeout is lost, and its node
        keeps the state it had.

        Raises:
            RunError: a node is asked twice.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        asked = [numbered(message, f"message-{next(self._ids)}") for message in messages]
        known = [message for message in asked if message.metadata.dst_node_id in self.nodes]
        _check_once(message.metadata.dst_node_id for message in known)
        for stray in (message for message in asked if message.metadata.dst_node_id not in self.nodes):
            yield Message(Error(ErrorCode.NODE_UNAVAILABLE, "no such node"), reply_to=stray)
        with closing(self._executor.run(self._blocks(known))) as done:
            for replies in done:
                if deadline is not None and time.monotonic() > deadline:
                    return
                yield from (self._accept(reply) for reply in replies)

    def _blocks(self, messages: list[Message]) -> Iterator[Block]:
        shared = self._shared(messages)
        for at in range(0, len(messages), self._block_size):
            yield Block(tuple(self._request(message) for message in messages[at : at + self._block_size]), shared)

    def _request(self, message: Message) -> ClientRequest:
        node = message.metadata.dst_node_id
        state = self.recall(node, self.states.get(node, RecordDict()))
        return ClientRequest(node - FIRST_NODE, message, state)

    def _accept(self, reply: ClientReply) -> Message:
        self.states[reply.message.metadata.src_node_id] = reply.state
        return reply.message


def _check_once(nodes: Iterable[int]) -> None:
    """Pass messages to as many nodes: two to one node may be answered at once, each from the state before."""
    node, times = max(Counter(nodes).items(), key=itemgetter(1), default=(0, 0))
    if times > 1:
        raise RunError(
            f"A node answers one message at a time; {times} of these are for node {node}. Send the second once the "
            "first is answered."
        )
