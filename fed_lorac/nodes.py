"""What nodes answer to messages, a cohort at a time. Knows Flower's records; what a camera does is in `camera`.

Of its own a camera remembers little: the round it has folded up to, its batch-norm statistics and, under error
feedback, what its codec left out. The running base is the same for all who have folded as much (`bases`), so whoever
calls this brings it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from torch import Tensor

from fed_lorac.bases import RunningBase
from fed_lorac.camera import Scores, Statistics, Turn, baseline, evaluate, take_turns
from fed_lorac.errors import one_line
from fed_lorac.site import Site
from fed_lorac.wire.codec import decode, encode
from fed_lorac.wire.faults import DROPPED_OUT
from fed_lorac.wire.meter import ARRAYS_KEY, frame_record, read_frame

__all__ = [
    "LOST_KEY",
    "STATISTICS_KEY",
    "Node",
    "Own",
    "Said",
    "answers",
    "folded_round",
    "raised",
    "recalled",
    "remembered",
    "told_round",
]

STATISTICS_KEY = "statistics"
LOST_KEY = "lost"
_MEMORY_KEY = "memory"


@dataclass(frozen=True)
class Own:
    """What is a camera's own from now on: its statistics, and what its codec left out; None: as it was."""

    statistics: Statistics | None = None
    lost: Mapping[str, Tensor] | None = None


Said = tuple[Message, Own]
"""A node's reply, and what is its camera's own from now on."""


@dataclass(frozen=True)
class Node:
    """One camera's part in a cohort: what it was sent, and what it remembers."""

    camera: int
    message: Message
    state: RecordDict


def answers(site: Site, running: RunningBase, nodes: Sequence[Node]) -> list[Said]:
    """Each node's answer, in the order of the nodes; all have folded up to `running` and were sent the same kind."""
    [kind] = {node.message.metadata.message_type for node in nodes}
    return _ANSWERS[kind](site, running, nodes)


def folded_round(state: RecordDict) -> int:
    """The last round that a node has folded, out of its memory."""
    memory = state.config_records.get(_MEMORY_KEY)
    return int(memory["folded-round"]) if memory else 0  # type: ignore[arg-type]


def recalled(state: RecordDict, key: str = STATISTICS_KEY) -> Statistics:
    """A camera's statistics, or under another key what else is its own, out of its node's memory."""
    kept = state.array_records.get(key)
    return decode(read_frame(kept), base="") if kept else {}


def remembered(
    before: RecordDict,
    folded_round: int,
    statistics: Statistics | None,
    lost: Mapping[str, Tensor] | None = None,
) -> RecordDict:
    """What a node keeps from now on, as `folded_round` and `recalled` read it; None: what it kept before."""
    state = RecordDict({_MEMORY_KEY: ConfigRecord({"folded-round": folded_round})})
    for key, new in ((STATISTICS_KEY, statistics), (LOST_KEY, lost)):
        if kept := before.array_records.get(key) if new is None else new and _packed(new):
            state[key] = kept
    return state


def told_round(message: Message, state: RecordDict) -> Message:
    """What a camera says that lacks updates: how far it has come, so that it is sent the rest."""
    metrics = MetricRecord({"num-examples": 0, "folded-round": folded_round(state)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def raised(message: Message, error: Exception) -> Message:
    """The reply of a camera that failed, on one line."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, one_line(error)), reply_to=message)


def _roll_call(site: Site, running: RunningBase, nodes: Sequence[Node]) -> list[Said]:
    """Which camera each is."""
    return [(_reply(node, MetricRecord({"camera": node.camera})), Own()) for node in nodes]


def _train(site: Site, running: RunningBase, nodes: Sequence[Node]) -> list[Said]:
    """Take a turn, send its frame; a camera whose reply will be lost spares itself the turn.

    It is then as if the turn had not been: its statistics stay as they were, and so does what its codec left out of the
    last frame that did arrive.
    """
    [round] = {int(_asked(node)["server-round"]) for node in nodes}  # type: ignore[arg-type]
    dropped = site.fleet.dropped(round)
    able = [node for node in nodes if node.camera not in dropped]
    cameras, statistics = [node.camera for node in able], [recalled(node.state) for node in able]
    lost = [recalled(node.state, LOST_KEY) for node in able]
    turns = take_turns(site, running, round, cameras, statistics, lost) if able else []
    taken = dict(zip(cameras, turns, strict=True))
    return [_turned(node, taken[node.camera]) if node.camera in taken else _dropped(node) for node in nodes]


def _turned(node: Node, turn: Turn) -> Said:
    metrics = MetricRecord({"num-examples": turn.num_examples, "train-loss": turn.train_loss})
    return _reply(node, metrics, frame_record(turn.frame)), Own(turn.statistics, turn.lost)


def _dropped(node: Node) -> Said:
    lost = Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, DROPPED_OUT)
    return Message(lost, reply_to=node.message), Own()


def _measure(site: Site, running: RunningBase, nodes: Sequence[Node]) -> list[Said]:
    """Where asked, measure the base as it comes (round 0) or the current model, each in the round's weather.

    Where weather changes, the base is measured again beside every model: only what stood in one weather compares.
    """
    return [_measured(site, running, node) for node in nodes]


def _measured(site: Site, running: RunningBase, node: Node) -> Said:
    asked, statistics = _asked(node), None
    round, measure = int(asked["server-round"]), bool(asked.get("measure"))  # type: ignore[arg-type]
    examples = len(site.fleet.cameras[node.camera].evaluation)
    metrics = MetricRecord({"num-examples": examples, "folded-round": running.round})
    if asked.get("baseline") or (measure and site.fleet.changing):
        source, zero_byte = baseline(site, round, node.camera)
        metrics.update(_scores("source", source) | _scores("zero-byte", zero_byte))
    if measure:
        scores, statistics = evaluate(site, running, round, node.camera, recalled(node.state))
        metrics.update(_scores("adapted", scores))
    reply = _reply(node, metrics)
    if asked.get("statistics") and statistics:
        reply.content[STATISTICS_KEY] = _packed(statistics)
    return reply, Own(statistics)


_ANSWERS: dict[str, Callable[[Site, RunningBase, Sequence[Node]], list[Said]]] = {
    MessageType.QUERY: _roll_call,
    MessageType.TRAIN: _train,
    MessageType.EVALUATE: _measure,
}


def _asked(node: Node) -> ConfigRecord:
    return node.message.content.config_records["config"]


def _scores(name: str, scores: Scores) -> dict[str, float]:
    both = {f"{name}-accuracy": scores.weather, f"{name}-accuracy-clean": scores.clean}
    return {key: value for key, value in both.items() if not math.isnan(value)}


def _packed(statistics: Statistics) -> ArrayRecord:
    """Tensors as one frame: every array of a record weighs half a kilobyte of objects, whatever is in it."""
    return frame_record(encode(statistics, dtype="fp32", base=""))


def _reply(node: Node, metrics: MetricRecord, arrays: ArrayRecord | None = None) -> Message:
    content = RecordDict({"metrics": metrics})
    if arrays is not None:
        content[ARRAYS_KEY] = arrays
    return Message(content, reply_to=node.message)
