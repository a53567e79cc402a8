"""What nodes answer to messages, a block at a time. Knows Flower's records; what a camera does is in `camera`, what it
remembers in `memory`. The running base is the same for all who have folded as much, so whoever calls this brings it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from torch import Tensor

from fed_lorac.client.evaluation import Scores, baseline, evaluate
from fed_lorac.client.global_model import GlobalModel, under
from fed_lorac.client.local_update import Brought, LocalUpdate, local_updates
from fed_lorac.client.state import LOST_KEY, STATISTICS_KEY, folded_round, packed, personal_frame, recalled, remembered
from fed_lorac.config import names
from fed_lorac.errors import one_line
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.training.accuracy import Statistics
from fed_lorac.wire.base_tags import personal_fingerprint
from fed_lorac.wire.billing import ARRAYS_KEY, frame_record
from fed_lorac.wire.frame import decode
from fed_lorac.wire.refusals import DROPPED_OUT
from fed_lorac.wire.updates import PERSONAL_KEY

__all__ = ["Node", "Own", "Said", "answers", "keeping", "raised", "told_round"]


@dataclass(frozen=True)
class Own:
    """What is a camera's own from now on: its statistics, what its codec left out, and its part of the network as a
    frame; None or empty: as it was, or as it was told."""

    statistics: Statistics | None = None
    lost: Mapping[str, Tensor] | None = None
    part: bytes = b""


Said = tuple[Message, Own]
"""A node's reply, and what is its camera's own from now on."""


@dataclass(frozen=True)
class Node:
    """One camera's part in a block: what it was sent, and what it remembers."""

    camera: int
    message: Message
    state: RecordDict

    @property
    def personal_frame(self) -> bytes:
        """Its own part of the network: as it is told now, else as it remembers."""
        return personal_frame(self.message.content, self.state)


def answers(experiment: Experiment, running: GlobalModel, nodes: Sequence[Node]) -> list[Said]:
    """Each node's answer, in the order of the nodes; all have folded up to `running` and were sent the same kind."""
    [kind] = {node.message.metadata.message_type for node in nodes}
    return _ANSWERS[kind](experiment, running, nodes)


def keeping(before: RecordDict, message: Message, round: int, own: Own) -> RecordDict:
    """What a node remembers once it has answered `message`, `round` being the last that it has folded."""
    return remembered(before, round, own.statistics, own.lost, own=own.part, told=message.content)


def told_round(message: Message, state: RecordDict) -> Message:
    """What a camera says that lacks updates: how far it has come, so that it is sent the rest."""
    metrics = MetricRecord({"num-examples": 0, "folded-round": folded_round(state)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def raised(message: Message, error: Exception) -> Message:
    """The reply of a camera that failed, on one line."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, one_line(error)), reply_to=message)


def _roll_call(experiment: Experiment, running: GlobalModel, nodes: Sequence[Node]) -> list[Said]:
    """Which camera each is."""
    return [(_reply(node, MetricRecord({"camera": node.camera})), Own()) for node in nodes]


def _train(experiment: Experiment, running: GlobalModel, nodes: Sequence[Node]) -> list[Said]:
    """Take a turn, send its frame; a camera whose reply will be lost spares itself the turn.

    It is then as if the turn had not been: its statistics stay as they were, and so does what its codec left out of the
    last frame that did arrive.
    """
    [round] = {int(_asked(node)["server-round"]) for node in nodes}  # type: ignore[arg-type]
    dropped = experiment.fleet.dropped(round)
    able = [node for node in nodes if node.camera not in dropped]
    taken: dict[int, LocalUpdate] = {}
    for alike in _alike(experiment, able):
        base, brought = _beneath(experiment, running, alike[0]), [_brought(experiment, node) for node in alike]
        turns = local_updates(experiment, base, round, brought)
        taken |= {one.camera: turn for one, turn in zip(brought, turns, strict=True)}
    return [_turned(node, taken[node.camera]) if node.camera in taken else _dropped(node) for node in nodes]


def _alike(experiment: Experiment, nodes: Sequence[Node]) -> list[list[Node]]:
    """Those together that can train side by side: with adapters of one shape, over one base."""
    groups: dict[tuple[int, bytes], list[Node]] = {}
    for node in nodes:
        group = node.personal_frame if _grouped(experiment) else b""
        groups.setdefault((experiment.place(node.camera), group), []).append(node)
    return list(groups.values())


def _grouped(experiment: Experiment) -> bool:
    """Whether a camera's own part is its group's change of the base, and not what its adapter begins from."""
    return experiment.config.strategy.name in names.GROUPED


def _beneath(experiment: Experiment, running: GlobalModel, node: Node) -> GlobalModel:
    """The base that a node's adapter changes."""
    return under(experiment, running, node.personal_frame) if _grouped(experiment) and node.personal_frame else running


def _brought(experiment: Experiment, node: Node) -> Brought:
    return Brought(node.camera, recalled(node.state), recalled(node.state, LOST_KEY), _adapter(experiment, node))


def _adapter(experiment: Experiment, node: Node) -> Mapping[str, Tensor]:
    """The state that a camera's adapter begins its turn with; empty: it begins anew."""
    frame = b"" if _grouped(experiment) else node.personal_frame
    return decode(frame, base=personal_fingerprint(experiment.base.fingerprint)) if frame else {}


def _turned(node: Node, turn: LocalUpdate) -> Said:
    metrics = MetricRecord({"num-examples": turn.num_examples, "train-loss": turn.train_loss})
    arrays = frame_record(turn.frame) if turn.frame else None
    return _reply(node, metrics, arrays), Own(turn.statistics, turn.lost, turn.own)


def _dropped(node: Node) -> Said:
    lost = Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, DROPPED_OUT)
    return Message(lost, reply_to=node.message), Own()


def _measure(experiment: Experiment, running: GlobalModel, nodes: Sequence[Node]) -> list[Said]:
    """Where asked, measure the base as it comes (round 0) or the current model, each in the round's weather.

    Where weather changes, the base is measured again beside every model: only what stood in one weather compares.
    """
    return [_measured(experiment, running, node) for node in nodes]


def _measured(experiment: Experiment, running: GlobalModel, node: Node) -> Said:
    asked, statistics = _asked(node), None
    round, measure = int(asked["server-round"]), bool(asked.get("measure"))  # type: ignore[arg-type]
    examples = len(experiment.fleet.cameras[node.camera].evaluation)
    metrics = MetricRecord({"num-examples": examples, "folded-round": running.round})
    if asked.get("baseline") or (measure and experiment.fleet.changing):
        source, zero_byte = baseline(experiment, round, node.camera)
        metrics.update(_scores("source", source) | _scores("zero-byte", zero_byte))
    if measure:
        base, adapter = _beneath(experiment, running, node), _adapter(experiment, node)
        scores, statistics = evaluate(experiment, base, round, node.camera, recalled(node.state), adapter)
        metrics.update(_scores("adapted", scores))
    reply = _reply(node, metrics)
    if asked.get("statistics") and statistics:
        reply.content[STATISTICS_KEY] = packed(statistics)
    if asked.get("statistics") and node.personal_frame:
        reply.content[PERSONAL_KEY] = frame_record(node.personal_frame)
    return reply, Own(statistics)


_ANSWERS: dict[str, Callable[[Experiment, GlobalModel, Sequence[Node]], list[Said]]] = {
    MessageType.QUERY: _roll_call,
    MessageType.TRAIN: _train,
    MessageType.EVALUATE: _measure,
}


def _asked(node: Node) -> ConfigRecord:
    return node.message.content.config_records["config"]


def _scores(name: str, scores: Scores) -> dict[str, float]:
    both = {f"{name}-accuracy": scores.weather, f"{name}-accuracy-clean": scores.clean}
    return {key: value for key, value in both.items() if not math.isnan(value)}


def _reply(node: Node, metrics: MetricRecord, arrays: ArrayRecord | None = None) -> Message:
    content = RecordDict({"metrics": metrics})
    if arrays is not None:
        content[ARRAYS_KEY] = arrays
    return Message(content, reply_to=node.message)
