"""What a camera is asked and what it replies, as Flower carries it. Knows Flower's messages and records; not what is in
them, so that a worker can hold one before it has imported PyTorch."""

from dataclasses import dataclass

from flwr.app import Message, RecordDict

__all__ = ["ClientReply", "ClientRequest"]


@dataclass(frozen=True)
class ClientRequest:
    """One camera's part in a block: the message to it, and the state that its node keeps between messages.

    Nobody alters `state`: a `ClientReply` brings the one that takes its place.
    """

    camera: int
    message: Message
    state: RecordDict


@dataclass(frozen=True)
class ClientReply:
    """A camera's reply, and its state from now on; where it failed, the state it had before."""

    message: Message
    state: RecordDict
