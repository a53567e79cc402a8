"""What a server makes of replies: counted, or left out for a reason. Knows frames and Flower; not their arithmetic."""

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from torch import Tensor

from fed_lorac.adapters.changes import changed_names, pair_of
from fed_lorac.errors import FrameError
from fed_lorac.wire.codec import decode, inspect
from fed_lorac.wire.faults import RefusedFrameError
from fed_lorac.wire.meter import Weight, message_bytes, read_frame

__all__ = ["Reply", "judge", "mean_metrics", "weighted_mean"]

Record = TypeVar("Record", ArrayRecord, MetricRecord)

_LARGEST = 2.0**100  # no weight changes by as much, and no mean of smaller changes overflows float32
_LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)
_NOT_MEASURED = ("num-examples", "folded-round")


@dataclass(frozen=True)
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
    template: Mapping[str, Sequence[int]],
) -> list[Reply]:
    """One `Reply` for each drawn camera, in camera order, the same in whatever order the messages arrive.

    Args:
        replies: consumed once, as they come.
        roster: node id -> camera; messages of other nodes, or of cameras that were not drawn, are ignored and logged.
        drawn: the cameras that were asked.
        base: fingerprint of the base that this round's frames must be for.
        template: name -> shape of every tensor of a frame.
    """
    came: dict[int, list[Reply]] = {camera: [] for camera in sorted(drawn)}
    for message in replies:
        camera = roster.get(message.metadata.src_node_id)
        if camera in came:
            came[camera].append(_read(message, camera, base, template))
        else:
            who = f"node {message.metadata.src_node_id}" if camera is None else f"camera {camera}"
            logging.getLogger(__name__).warning("A reply of %s is ignored: it was not asked in this round.", who)
    return [_settled(camera, answers) for camera, answers in came.items()]


def _settled(camera: int, answers: Sequence[Reply]) -> Reply:
    """One verdict on all that a camera sent; every byte of it is billed."""
    if len(answers) < 2:
        return answers[0] if answers else Reply(camera)
    weight = sum((answer.weight for answer in answers), Weight())
    counted = {(a.frame, a.num_examples, repr(a.train_loss)): a for a in answers if a.counted}
    if len(counted) > 1:
        return Reply(camera, reason="several replies that differ", weight=weight)
    if not counted:
        return replace(min(answers, key=lambda answer: answer.reason), weight=weight)
    return replace(*counted.values(), weight=weight, reason="a second reply was ignored")


def _read(message: Message, camera: int, base: str, template: Mapping[str, Sequence[int]]) -> Reply:
    if not message.has_content():
        return Reply(camera, reason=_trouble(message.error))
    weight = _weight(message)
    try:
        frame, examples, loss = _checked(message.content, base, template)
    except _RefusedError as refusal:
        return Reply(camera, reason=str(refusal), weight=weight)
    except RefusedFrameError as error:
        return Reply(camera, reason=error.reason, weight=weight)
    return Reply(camera, True, "", frame, examples, loss, weight)


def _weight(message: Message) -> Weight:
    """What a reply weighs, as far as it can be read: what is refused was sent all the same."""
    frame_bytes = payload_bytes = 0
    with suppress(_RefusedError, FrameError):
        frame = read_frame(_one(message.content, ArrayRecord))
        frame_bytes = len(frame)
        payload_bytes = inspect(frame).payload_bytes
    size = message_bytes(message.content, message.metadata.message_type, reply=True)
    return Weight(payload_bytes, frame_bytes, size)


def _checked(content: RecordDict, base: str, template: Mapping[str, Sequence[int]]) -> tuple[bytes, int, float]:
    """The frame, examples and loss of a reply that can be counted."""
    frame, metrics = read_frame(_one(content, ArrayRecord)), _one(content, MetricRecord)
    _check_shapes(inspect(frame).shapes, template)
    _check_range(decode(frame, base=base))
    examples, loss = metrics.get("num-examples"), metrics.get("train-loss")
    if not isinstance(examples, int) or examples < 1:
        raise _RefusedError("num-examples is not a positive integer")
    return frame, examples, float(loss) if isinstance(loss, int | float) else math.nan


def _one(content: RecordDict, kind: type[Record]) -> Record:
    found = [record for record in content.values() if isinstance(record, kind)]
    if len(found) != 1:
        raise _RefusedError(f"{len(found)} {kind.__name__}s instead of one")
    return found[0]


def _check_shapes(shapes: Mapping[str, Sequence[int]], template: Mapping[str, Sequence[int]]) -> None:
    """Pass exactly the names and shapes that were agreed on."""
    for name in sorted(shapes.keys() ^ template.keys()):
        raise _RefusedError(f"missing tensor {name}" if name in template else f"unknown tensor {name[:64]!r}")
    for name, shape in template.items():
        if tuple(shapes[name]) != tuple(shape):
            raise _RefusedError(f"wrong shape of {name}: {tuple(shapes[name])}, not {tuple(shape)}")


def _check_range(state: Mapping[str, Tensor]) -> None:
    """Pass changes that can be averaged: finite factors may still have a product that is not."""
    for name in changed_names(state):
        parts = pair_of(state, name) or (state[name],)
        if math.prod(float(torch.linalg.vector_norm(part, dtype=torch.float64)) for part in parts) > _LARGEST:
            raise _RefusedError(f"the change of {name} is beyond 2^100")


def _trouble(error: Error) -> str:
    if error.code in _LOST:
        return "no reply"
    lines = [line.strip() for line in (error.reason or "").splitlines() if line.strip()]
    return f"raised: {lines[-1][:200] if lines else 'no reason given'}"  # of a traceback, the exception's own line


def weighted_mean(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of (value, weight), over the values that are finite; nan where there is none."""
    rows = [(value, weight) for value, weight in pairs if math.isfinite(value) and weight > 0]
    total = math.fsum(weight for _, weight in rows)
    return math.fsum(value * weight for value, weight in rows) / total if rows else math.nan


def mean_metrics(contents: Iterable[RecordDict]) -> MetricRecord | None:
    """Each number that cameras report, averaged by `num-examples` over those that report it; None where none does."""
    found: dict[str, list[tuple[float, float]]] = {}
    for metrics in (record for content in contents for record in content.metric_records.values()):
        examples = metrics.get("num-examples")
        for key, value in metrics.items():
            if key not in _NOT_MEASURED and isinstance(value, int | float) and isinstance(examples, int | float):
                found.setdefault(key, []).append((float(value), float(examples)))
    means = {key: mean for key, pairs in sorted(found.items()) if math.isfinite(mean := weighted_mean(pairs))}
    return MetricRecord(dict(means)) if means else None
