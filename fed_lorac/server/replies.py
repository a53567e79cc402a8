"""What a server makes of replies: counted, or left out for a reason. Knows frames and Flower; not their arithmetic."""

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import TypeVar

import torch
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from torch import Tensor

from fed_lorac.aggregation.delta_sum import State
from fed_lorac.errors import last_line
from fed_lorac.server.audience import ToldAlike
from fed_lorac.wire.billing import MessageSize, message_bytes, read_frame, read_observed, without_observed
from fed_lorac.wire.frame import decode, inspect
from fed_lorac.wire.refusals import DROPPED_OUT, NOT_ASKED, RefusedFrameError
from fed_lorac.wire.template import Template

__all__ = ["Reply", "ReplyCollector", "RoundReport", "mean_metrics", "read_metrics", "train_metrics", "weighted_mean"]

Record = TypeVar("Record", ArrayRecord, MetricRecord)

_LARGEST = 2.0**100  # no weight changes by as much
_LARGEST_WEIGHED = 2.0**110  # nor times its examples, so that a mean of smaller changes does not overflow float32
_NOT_MEASURED = ("num-examples", "folded-round")

MOST_SAID = 500
"""Characters of what a camera says of its failure."""

_LOST = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)


@dataclass(frozen=True)
class Reply:
    """One camera's answer in one round: counted, or left out with a reason.

    `observed`: what a simulation sees of its learning without labels; nothing here depends on it.
    """

    camera: int
    counted: bool = False
    reason: str = "no reply"
    num_examples: int = 0
    train_loss: float = math.nan
    size: MessageSize = field(default_factory=MessageSize)
    observed: Mapping[str, float] = field(default_factory=dict)


@dataclass
class RoundReport:
    """One round in numbers: replies in the order of the draw, what went down to each camera, the average's error.

    `caught_up` counts messages by the number of updates that they made up for; `updates_for`: of each camera's. Of the
    messages, `fresh` brought the round's update alone, by link, personal part and size, and `fresh_for` by camera;
    `repeats` of them brought it to the second camera of a link and to those after it, and `repeated` is what those
    copies weigh.

    `listed`: the cameras that have a row of their own; None: all. The others were told as `told` says. `layers`: those
    that the server has chosen in this round; `needed_bytes`: what a frame's payload takes from then on. `not_asked`:
    who lost the message that asks it to train; `updates_lost`: how many lost what they were told after that.
    """

    round: int
    replies: list[Reply]
    down: dict[int, MessageSize] = field(default_factory=dict)
    caught_up: Counter[int] = field(default_factory=Counter)
    updates_for: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    fresh: Counter[tuple[str, object, MessageSize]] = field(default_factory=Counter)
    fresh_for: dict[int, MessageSize] = field(default_factory=dict)
    listed: Sequence[int] | None = None
    told: list[ToldAlike] = field(default_factory=list)
    not_asked: set[int] = field(default_factory=set)
    updates_lost: int = 0
    skipped: bool = False
    aggregation_error: float = math.nan
    layers: tuple[str, ...] = ()
    needed_bytes: int = 0

    def bring(self, camera: int, link: str, personal: object, size: MessageSize) -> None:
        """Note that a message to this camera brought the round's update alone."""
        self.fresh[link, personal, size] += 1
        self.fresh_for[camera] = size

    @property
    def repeats(self) -> int:
        """How many messages brought the round's update to a link that had it already."""
        return self.fresh.total() - len({link for link, *_ in self.fresh})

    @property
    def repeated(self) -> MessageSize:
        """What such copies weigh; of each personal part's, the first is none."""
        return sum((size.times(count - 1) for (*_, size), count in self.fresh.items()), MessageSize())

    @property
    def sent_down(self) -> Iterator[MessageSize]:
        """What went down to all cameras together, by kind of message."""
        yield from self.down.values()
        yield from (alike.size.times(alike.count) for alike in self.told)

    @property
    def updates_sent(self) -> int:
        """How many updates all messages made up for."""
        return sum(updates * messages for updates, messages in self.caught_up.items())


class _RefusedError(Exception):
    """A reply to leave out; its text is the reason, a few words for the ledger."""


class ReplyCollector:
    """Judges one round's replies as they come and hands out the states that count, in the order of the draw.

    A state is kept only until those of the cameras drawn before it have come: a grid that replies in the order of its
    messages never has two of them in memory. The sum over `states` is the same whatever the order of arrival. A
    camera's first reply is its reply; what it sends after that is billed and ignored.

    Args:
        roster: node id -> camera; messages of other nodes, or of cameras that were not drawn, are ignored and logged.
        drawn: the cameras that were asked, in order.
        base: fingerprint of the base that this round's frames must be for.
        template: camera -> name -> shape of every tensor of its frame.
        judge: has the last word on a reply that came, and may leave it out.
        templates: what frames without names may be of.
        not_asked: those of them that the message to was lost: nothing comes of them.
    """

    def __init__(
        self,
        roster: Mapping[int, int],
        drawn: Iterable[int],
        base: str,
        template: Callable[[int], Mapping[str, Sequence[int]]],
        judge: Callable[[Reply], Reply] = lambda reply: reply,
        templates: Sequence[Template] = (),
        not_asked: Collection[int] = (),
    ) -> None:
        self._roster, self._base, self._template, self._templates = roster, base, template, templates
        self.verdicts = {camera: Reply(camera) for camera in drawn}
        self.verdicts.update((camera, Reply(camera, reason=NOT_ASKED)) for camera in not_asked)
        self._not_asked = not_asked
        self._heard: set[int] = set()
        self._judge = judge

    def states(self, replies: Iterable[Message]) -> Iterator[tuple[int, State, int]]:
        """(camera, state, examples) of each reply that counts; `verdicts` is complete when this has ended."""
        waiting: dict[int, State | None] = dict.fromkeys(self._not_asked)
        due = iter(self.verdicts)
        camera = next(due, None)
        for message in replies:
            if (who := self._asked(message)) is None:
                continue
            if who in self._heard:
                self._bill_again(who, message)
                continue
            self._heard.add(who)
            reply, state = self._read(message, who)
            self.verdicts[who] = self._judge(reply)
            waiting[who] = state if self.verdicts[who].counted else None
            while camera in waiting:
                yield from self._counted(camera, waiting.pop(camera))
                camera = next(due, None)
        for late in [camera, *due] if camera is not None else []:
            yield from self._counted(late, waiting.pop(late, None))

    def _counted(self, camera: int, state: State | None) -> Iterator[tuple[int, State, int]]:
        if state is not None:
            yield camera, state, self.verdicts[camera].num_examples

    def _asked(self, message: Message) -> int | None:
        camera = self._roster.get(message.metadata.src_node_id)
        if camera in self.verdicts:
            return camera
        who = f"node {message.metadata.src_node_id}" if camera is None else f"camera {camera}"
        logging.getLogger(__name__).warning("A reply of %s is ignored: it was not asked in this round.", who)
        return None

    def _read(self, message: Message, camera: int) -> tuple[Reply, State | None]:
        return _read(message, self._base, camera, self._template(camera), self._templates)

    def _bill_again(self, camera: int, message: Message) -> None:
        first, (extra, _) = self.verdicts[camera], self._read(message, camera)
        reason = "a second reply was ignored" if first.counted else first.reason
        self.verdicts[camera] = replace(first, reason=reason, size=first.size + extra.size)


def _read(
    message: Message, base: str, camera: int, template: Mapping[str, Sequence[int]], templates: Sequence[Template]
) -> tuple[Reply, State | None]:
    if not message.has_content():
        return Reply(camera, reason=_failure(message.error)), None
    size = MessageSize(message_bytes=_size(message))
    try:
        frame = read_frame(_one(message.content, ArrayRecord))
        size = replace(size, frame_bytes=len(frame))
        facts = inspect(frame, templates=templates)
        size = replace(size, payload_bytes=facts.payload_bytes)
        examples, loss = _numbers(_one(message.content, MetricRecord))
        if facts.shapes is not None:
            _check_shapes(facts.shapes, template)
        state = decode(frame, base=base, templates=templates)
        _check_range(state, examples)
    except _RefusedError as refusal:
        return Reply(camera, reason=str(refusal), size=size), None
    except RefusedFrameError as error:
        return Reply(camera, reason=error.reason, size=size), None
    return Reply(camera, True, "", examples, loss, size, read_observed(message.content)), state


def _size(message: Message) -> int:
    return message_bytes(without_observed(message.content), message.metadata.message_type, reply=True)


def _numbers(metrics: MetricRecord) -> tuple[int, float]:
    """Examples and loss of a reply."""
    examples, loss = metrics.get("num-examples"), metrics.get("train-loss")
    if not isinstance(examples, int) or examples < 1:
        raise _RefusedError("num-examples is not a positive integer")
    return examples, float(loss) if isinstance(loss, int | float) else math.nan


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


def _check_range(state: Mapping[str, Tensor], examples: int) -> None:
    """Pass changes that can be averaged: a layer's finite factors may still have a product that is not."""
    sizes: dict[str, float] = {}
    for key, part in state.items():
        layer = key.rpartition(".")[0]
        size = sizes.get(layer, 1.0) * max(1.0, float(torch.linalg.vector_norm(part, dtype=torch.float64)))
        if size > _LARGEST:
            raise _RefusedError(f"the change of {layer or key} is beyond 2^100")
        if size * examples > _LARGEST_WEIGHED:
            raise _RefusedError(f"the change of {layer or key}, num-examples times, is beyond 2^110")
        sizes[layer] = size


def _failure(error: Error) -> str:
    if error.code in _LOST:
        return DROPPED_OUT if error.reason == DROPPED_OUT else "no reply"
    said = shorten(last_line(error.reason, "no reason given"), MOST_SAID, placeholder=" ...")
    return said if error.code == ErrorCode.CLIENT_APP_CRASHED else f"raised: {said}"


def weighted_mean(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of (value, weight), over the values that are finite; nan where there is none."""
    rows = [(value, weight) for value, weight in pairs if math.isfinite(value) and weight > 0]
    total = math.fsum(weight for _, weight in rows)
    return math.fsum(value * weight for value, weight in rows) / total if rows else math.nan


def read_metrics(message: Message, camera: int) -> Reply:
    """How a camera's training went, from a reply without a frame."""
    if not message.has_content():
        return Reply(camera, reason=_failure(message.error))
    try:
        examples, loss = _numbers(_one(message.content, MetricRecord))
        return Reply(camera, True, "", examples, loss, observed=read_observed(message.content))
    except _RefusedError as refusal:
        return Reply(camera, reason=str(refusal))


def train_metrics(counted: Sequence[Reply]) -> MetricRecord:
    """All examples of these replies, and their mean loss where one is finite."""
    metrics = MetricRecord({"num-examples": sum(reply.num_examples for reply in counted)})
    loss = weighted_mean((reply.train_loss, reply.num_examples) for reply in counted)
    if math.isfinite(loss):
        metrics["train-loss"] = loss
    return metrics


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
