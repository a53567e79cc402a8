"""The one place that touches what Flower keeps private. Knows Flower's internals; not frames, cameras or rounds.

Seen in flwr 1.41: `Message(...)` takes run, node and task ids from the process-wide `TaskIdentity`, which only
Flower's own processes set; a message is serialised by `flwr.common.serde`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto, recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["SERVER_NODE_ID", "fixed_message", "numbered", "proto_bytes", "record_bytes", "record_of", "task_identity"]

SERVER_NODE_ID = 1  # Flower's own number for the server's side

# Ids as a deployed SuperLink hands them out: random 64-bit numbers, half of which take 10 bytes as a varint, as this
# one does; message ids are SHA-256 in hexadecimal. Fixed, because random ids move a message's size by some 20 bytes.
_ID = 1 << 63
_MESSAGE_ID = "0" * 64
_IDENTITY = ("_task_id", "_run_id", "_node_id")


@contextmanager
def task_identity(*, run_id: int = 1, node_id: int = SERVER_NODE_ID, task_id: int = 1) -> Iterator[None]:
    """Let `Message(...)` work outside a Flower process; what was set before is set again after.

    The identity belongs to the process, not to a thread: enter it once, around a whole run.
    """
    before: dict[str, Any] = {name: getattr(TaskIdentity, name) for name in _IDENTITY}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task_id, run_id, node_id
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


def fixed_message(content: RecordDict, message_type: str, *, reply: bool) -> Message:
    """A message with this content and ids, times and tasks that never change; needs no task identity.

    `reply`: from a camera to the server, in answer to a message; otherwise an instruction the other way.
    """
    metadata = Metadata(
        run_id=_ID,
        message_id=_MESSAGE_ID,
        src_node_id=_ID if reply else SERVER_NODE_ID,
        dst_node_id=SERVER_NODE_ID if reply else _ID,
        reply_to_message_id=_MESSAGE_ID if reply else "",
        group_id="",  # as flwr.serverapp's strategies send it
        created_at=1.0,
        ttl=1.0,
        message_type=message_type,
        src_task_id=None if reply else _ID,
        dst_task_id=_ID if reply else None,
    )
    return make_message(metadata, content)


def numbered(message: Message, message_id: str) -> Message:
    """The message under an id, which otherwise only a SuperLink gives; its content is the very same object."""
    metadata = copy(message.metadata)
    metadata.__dict__["_message_id"] = message_id
    return make_message(metadata, message.content)


def record_bytes(records: RecordDict) -> bytes:
    """Records as protobuf, for `record_of` to read."""
    return bytes(recorddict_to_proto(records).SerializeToString())


def record_of(data: bytes) -> RecordDict:
    """The records in these bytes; protobuf runs no code from them."""
    return recorddict_from_proto(ProtoRecordDict.FromString(data))


def proto_bytes(message: Message) -> int:
    """The bytes of a message serialised as protobuf."""
    return int(message_to_proto(message).ByteSize())
