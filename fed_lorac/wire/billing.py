"""Billing: which bytes of a round crossed the radio. Knows frames and Flower's records; not links or ledgers.

The law, for every method and for full fine-tuning alike:

- Down, a camera is billed for the message that asks it to train, and for the message that brings it updates, or the
  whole model in their stead, the last round's included. It is billed again for what it has to be sent again.
- Up, it is billed for every reply that went on the air, be it counted, refused, late or a second one. A reply that is
  lost by design, or that could not be begun in time, goes nowhere and costs nothing.
- Not billed is what only a simulation does: the roll call, a message that asks for an evaluation and brings nothing,
  the accuracies that come back, and what it sees of a camera that learns without labels. The base model is installed
  beforehand, and costs no one anything.
- Nothing is billed under a strategy whose cameras send nothing.
- A message is measured, never estimated, at three depths (`MessageSize`): its values alone (payload), the frame around
  them with names, shapes, settings and checksum, and Flower's message around that as protobuf under fixed ids.
- Each camera is billed a copy of what goes down. Beside that stands what a base station would send that reaches all
  its cameras at once (`multicast`): the round's update once for all who lack just that and are on one link, and have
  the same beside it (a cluster's part). What is sent again to single cameras, and the asking, stays as it is.
- Full fine-tuning is billed for the same messages to the same cameras, built with the same code (`Reference`): once
  under the run's own codec, and once in fp32, which every share is of.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, MetricRecord, RecordDict
from numpy.lib import format as npy
from torch import Tensor

from fed_lorac.errors import FrameError, one_line
from fed_lorac.registry import CODECS
from fed_lorac.runtime.flower_private import fixed_message, proto_bytes
from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.codecs import OTHERS_FROM, Codec
from fed_lorac.wire.frame import TOPK_SHARE, decode, encode, payload_bytes
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.template import Template, template_of

__all__ = [
    "FRAME_KEY",
    "OBSERVED_KEY",
    "FullMessages",
    "MessageSize",
    "Reference",
    "Told",
    "frame_record",
    "full_message",
    "is_billed",
    "message_bytes",
    "message_size",
    "observed_record",
    "read_frame",
    "read_observed",
    "reply_records",
    "round_columns",
    "weighed_frame",
    "without_observed",
]

Record = ArrayRecord | ConfigRecord | MetricRecord

OBSERVED_KEY = "observed"
ARRAYS_KEY = "arrays"  # flwr.serverapp's name for the record with the model in a message
FRAME_KEY = "frame"


@dataclass(frozen=True)
class MessageSize:
    """One message in bytes, from the inside out: values alone, the frame around them, Flower's message around that."""

    payload_bytes: int = 0
    frame_bytes: int = 0
    message_bytes: int = 0

    def __add__(self, other: "MessageSize") -> "MessageSize":
        return MessageSize(
            self.payload_bytes + other.payload_bytes,
            self.frame_bytes + other.frame_bytes,
            self.message_bytes + other.message_bytes,
        )

    def times(self, count: int) -> "MessageSize":
        """So many messages of this size; with a count below 0, as many less."""
        return MessageSize(self.payload_bytes * count, self.frame_bytes * count, self.message_bytes * count)

    def columns(self, direction: str) -> dict[str, int]:
        """As ledger columns: `size.columns("uplink")` has `uplink_payload_bytes` and so on."""
        return {f"{direction}_{name}": value for name, value in vars(self).items()}


def is_billed(message_type: str, updates: int) -> bool:
    """Whether a message to a camera is: it asks for training, or brings as many updates."""
    return message_type == MessageType.TRAIN or updates > 0


def frame_record(frame: bytes) -> ArrayRecord:
    """A frame as ONE uint8 array: every array in a Flower record costs a header of 128 bytes of its own."""
    return ArrayRecord({FRAME_KEY: Array(np.frombuffer(frame, np.uint8))})


def without_observed(content: RecordDict) -> RecordDict:
    """A reply as it crosses the radio."""
    return RecordDict({key: record for key, record in content.items() if key != OBSERVED_KEY})


def observed_record(observed: Mapping[str, float]) -> ConfigRecord:
    """What a simulation sees of a camera beside its reply: it travels in the message, and is not billed."""
    return ConfigRecord(dict(observed))


def read_observed(content: RecordDict) -> dict[str, float]:
    """Its numbers; empty where there are none."""
    found = content.config_records.get(OBSERVED_KEY, ConfigRecord())
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _envelope_fault(came: str) -> RefusedFrameError:
    return RefusedFrameError(
        f"A frame travels as one flat uint8 array called {FRAME_KEY!r}; {came}. Build the record with frame_record().",
        "malformed envelope",
    )


def _npy_header(n_bytes: int) -> bytes:
    """What numpy.save writes before a flat uint8 array."""
    stream = BytesIO()
    npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (n_bytes,)})
    return stream.getvalue()


def read_frame(record: ArrayRecord) -> bytes:
    """The frame in a record; FrameError unless the record is what `frame_record` builds.

    The array's header is compared, never parsed: a stranger's header can make a parser fail or allocate at will.
    """
    if list(record) != [FRAME_KEY]:
        raise _envelope_fault(f"the record has {len(record)} arrays, {list(record)[:4]}")
    data = record[FRAME_KEY].data
    size = len(_npy_header(0))
    if data[:size] != _npy_header(max(0, len(data) - size)):
        raise _envelope_fault(f"the {len(data)} bytes of its array start with {bytes(data[:80])!r}")
    return bytes(data[size:])


def message_bytes(content: RecordDict, message_type: str = MessageType.TRAIN, *, reply: bool = False) -> int:
    """The bytes of a Flower message with this content as protobuf, under fixed ids (see flower_private)."""
    return proto_bytes(fixed_message(content, message_type, reply=reply))


def message_size(
    frame: bytes,
    payload: int,
    records: Mapping[str, Record] | None = None,
    *,
    message_type: str = MessageType.TRAIN,
    reply: bool = False,
) -> MessageSize:
    """Measure one message.

    Args:
        frame: the frame it carries.
        payload: bytes of the values in that frame (`codec.payload_bytes`).
        records: what travels beside the frame, by key: an instruction's "config", a reply's "metrics".
        message_type: Flower's message type.
        reply: camera to server (uplink); otherwise server to camera (downlink).
    """
    content = RecordDict({ARRAYS_KEY: frame_record(frame), **(records or {})})
    return MessageSize(payload, len(frame), message_bytes(content, message_type, reply=reply))


def reply_records(num_examples: int = 1000) -> dict[str, Record]:
    """What travels beside the frame in a camera's reply; the number of examples moves its size by a byte or so."""
    return {"metrics": MetricRecord({"num-examples": num_examples, "train-loss": 1.0})}


def weighed_frame(
    like: Mapping[str, Tensor],
    dtype: str | Codec,
    *,
    topk_share: float = TOPK_SHARE,
    templates: Sequence[Template] = (),
) -> bytes:
    """A frame for its size alone, which follows from shapes, types and settings: of zeros, which every codec can carry,
    for tensors like these; no fingerprint, no entropy coding."""
    zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in like.items()}
    rng = stream(0, "weighed")
    return encode(zeros, dtype=dtype, base="", rng=rng, topk_share=topk_share, templates=templates)


def check_own_codec(codec: Codec) -> None:
    """Raise `ConfigError` where somebody else's codec does not bring zeros back: known before anything is trained."""
    if codec.code < OTHERS_FROM:
        return
    zeros = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
    try:
        decode(weighed_frame(zeros, codec), base="")
    except FrameError as error:
        raise CODECS.broken(codec.name, one_line(error).rstrip(".")) from error


def full_message(
    model_state: Mapping[str, Tensor],
    dtype: str | Codec,
    records: Mapping[str, Record] | None = None,
    *,
    reply: bool = False,
    topk_share: float = TOPK_SHARE,
) -> MessageSize:
    """Build and measure the message that full fine-tuning would send, with the same codec and the same other records.

    The same codec with the same settings on both sides: a method under int4 is held against full fine-tuning under
    int4. `model_state` holds every parameter of the model, and its running statistics only where those are sent.
    Both ends know the network, so the frame names no tensors.
    """
    known = template_of({name: tensor.shape for name, tensor in model_state.items()})
    frame = weighed_frame(model_state, dtype, topk_share=topk_share, templates=[known])
    return message_size(frame, payload_bytes(model_state, dtype, topk_share), records, reply=reply)


@dataclass(frozen=True)
class FullMessages:
    """Full fine-tuning's messages for the same model, built and measured once.

    `down` has an update, `ask` no tensor, `whole` the model itself: for who missed updates that are larger together.
    Their frames alone cross a real radio.
    """

    up: MessageSize
    down: MessageSize
    ask: MessageSize
    whole: MessageSize

    def told(self, updates: int) -> MessageSize:
        """What a camera that lacks so many updates is sent."""
        sent = self.down.times(updates)
        return self.whole if sent.message_bytes > self.whole.message_bytes else sent

    def told_each(self, updates: Iterable[int]) -> MessageSize:
        """What a camera is sent that lacks so many of them at each of several messages."""
        return sum(map(self.told, updates), MessageSize())


@dataclass(frozen=True)
class Told:
    """What full fine-tuning would have sent down in a round beside asking: `caught_up` counts messages by the number of
    updates that they make up for; `repeats` are those that bring the round's own to the second camera of a link and to
    those after it, which multicast saves."""

    caught_up: Mapping[int, int] = field(default_factory=dict)
    repeats: int = 0


@dataclass(frozen=True)
class Reference:
    """The same messages under the run's own codec, and in fp32: the one that shares are of, whatever the codec."""

    same_codec: FullMessages
    fp32: FullMessages

    def columns(self, *, asked: int, answered: int, told: Told) -> dict[str, int]:
        """A round as ledger columns."""
        found: dict[str, int] = {}
        for name, full in (("full", self.same_codec), ("full_fp32", self.fp32)):
            sent = [full.told(updates).times(messages) for updates, messages in told.caught_up.items()]
            down = sum(sent, full.ask.times(asked))
            found |= full.up.times(answered).columns(f"{name}_uplink") | down.columns(f"{name}_downlink")
            found |= (down + full.down.times(-told.repeats)).columns(f"{name}_multicast_downlink")
        return found


def round_columns(
    up: Iterable[MessageSize],
    down: Iterable[MessageSize],
    reference: Reference,
    *,
    asked: int,
    told: Told,
    repeated: MessageSize,
) -> dict[str, int]:
    """A round's bytes as ledger columns: all that was billed, and what full fine-tuning would have been billed.

    Args:
        up: the size of each reply that is billed, counted or not, even where its values were never read.
        down: what each camera was sent.
        reference: full fine-tuning's messages.
        asked: how many cameras were asked to train.
        told: what full fine-tuning would have told them.
        repeated: how much of `down` is copies of an update for one more camera of a link.
    """
    up, total = list(up), sum(down, MessageSize())
    return {
        **sum(up, MessageSize()).columns("uplink"),
        **total.columns("downlink"),
        **(total + repeated.times(-1)).columns("multicast_downlink"),
        **reference.columns(asked=asked, answered=len(up), told=told),
    }
