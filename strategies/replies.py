"""What a server makes of replies: counted, or left out for a reason. Knows frames and Flower; not their arithmetic."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import Size, Tensor

from fed_lorac.errors import FactorError, FrameError
from fed_lorac.wire.codec import decode, inspect
from fed_lorac.wire.meter import Weight, message_bytes, read_frame

__all__ = ["Reply", "check_template", "judge"]

Record = TypeVar("Record", ArrayRecord, MetricRecord)


@dataclass
class Reply:
    """One camera's answer in one round: counted with a frame and examples, or left out with a reason."""

    camera: int
    counted: bool = False
    reason: str = "no reply"
    frame: bytes = field(default=b"", repr=False)
    num_examples: int = 0
    train_loss: float = math.nan
    weight: Weight = field(default_factory=Weight)


class _RefusedError(Exception):
    """A reply to leave out; its text is the reason, a few words for the ledger."""


def judge(
    replies: Iterable[Message],
    roster: Mapping[int, int],
    drawn: Collection[int],
    base: str,
    template: Mapping[str, Size],
) -> list[Reply]:
    """One `Reply` for each drawn camera, in camera order, whatever order the messages arrive in.

    Args:
        replies: consumed once, as they come; a second one of the same camera is ignored and noted.
        roster: node id -> camera; messages of other nodes, or of cameras that were not drawn, are ignored.
        drawn: the cameras that were asked.
        base: fingerprint of the base that this round's frames must be for.
        template: name -> shape of every tensor of a frame.
    """
    known: dict[int, Reply] = {}
    for message in replies:
        camera = roster.get(message.metadata.src_node_id)
        if camera is None or camera not in drawn:
            continue
        if camera in known:
            known[camera].reason = known[camera].reason or "a second reply was ignored"
            continue
        known[camera] = _read(message, camera, base, template)
    return [known.get(camera) or Reply(camera) for camera in sorted(drawn)]


def check_template(state: Mapping[str, Tensor], template: Mapping[str, Size]) -> None:
    """Raise FactorError unless the state has exactly the template's names and shapes."""
    for name in sorted(state.keys() ^ template.keys()):
        came = "came beside them" if name in state else "is missing"
        raise FactorError(f"A reply carries the tensors that were agreed on; {name} {came}. Do both ends run one config?")
    for name, tensor in state.items():
        if tensor.shape != template[name]:
            raise FactorError(
                f"{name} has shape {tuple(template[name])}; {tuple(tensor.shape)} came. Do both ends run one config?"
            )


def _read(message: Message, camera: int, base: str, template: Mapping[str, Size]) -> Reply:
    if not message.has_content():
        return Reply(camera, reason=f"raised: {_last_line(message.error.reason)}")
    # What is refused was sent all the same, and is billed.
    sent = Weight(message_bytes=message_bytes(message.content, message.metadata.message_type, reply=True))
    try:
        return _counted(message.content, camera, base, template, sent.message_bytes)
    except _RefusedError as refusal:
        return Reply(camera, reason=str(refusal), weight=sent)
    except FrameError as error:
        return Reply(camera, reason=str(getattr(error, "reason", "frame refused")), weight=sent)
    except FactorError as error:
        return Reply(camera, reason=f"wrong shape: {error}", weight=sent)


def _counted(content: RecordDict, camera: int, base: str, template: Mapping[str, Size], message_size: int) -> Reply:
    frame, metrics = read_frame(_one(content, ArrayRecord)), _one(content, MetricRecord)
    check_template(decode(frame, base=base), template)
    examples, loss = metrics.get("num-examples"), metrics.get("train-loss")
    if not isinstance(examples, int) or examples < 1:
        raise _RefusedError("num-examples is not a positive integer")
    weight = Weight(inspect(frame).payload_bytes, len(frame), message_size)
    return Reply(camera, True, "", frame, examples, float(loss) if isinstance(loss, int | float) else math.nan, weight)


def _one(content: RecordDict, kind: type[Record]) -> Record:
    found = [record for record in content.values() if isinstance(record, kind)]
    if len(found) != 1:
        raise _RefusedError(f"{len(found)} {kind.__name__}s instead of one")
    return found[0]


def _last_line(text: str) -> str:
    """The exception's own line, not its whole traceback."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"
