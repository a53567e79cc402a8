"""Rounds over frames: asks cameras, judges replies, keeps every camera's base current. Knows Flower's Strategy; not
what is averaged, which each strategy says in `combine`.

One round: the drawn cameras are asked to train; their frames are combined into one update; the update goes to EVERY
camera at once, with the round's evaluation, and both ends fold it. A camera that did not confirm an update gets it
again with its next message, and so catches up.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from torch import Size

from fed_lorac.running import running_fingerprint
from fed_lorac.wire.codec import decode, encode, inspect
from fed_lorac.wire.meter import Weight, frame_record, message_bytes
from fed_lorac.wire.updates import update_key
from strategies.arithmetic import DeltaSum, State, relative_distance, sum_states
from strategies.replies import Reply, judge

__all__ = ["FrameStrategy", "RoundReport", "Update"]

CONFIG_KEY = "config"  # Flower's own name in a message


@dataclass(frozen=True)
class Update:
    """What a round added to the base, as it crosses the radio."""

    round: int
    frame: bytes = field(repr=False)


@dataclass
class RoundReport:
    """One round in numbers: replies in camera order, what went down to each camera, the average's error."""

    round: int
    replies: list[Reply]
    down: dict[int, Weight] = field(default_factory=dict)
    updates_sent: int = 0
    skipped: bool = False
    aggregation_error: float = math.nan


class FrameStrategy(Strategy):
    """A Flower Strategy whose messages are frames; any ServerApp can `start` it.

    Args:
        base: fingerprint of the starting base, which both ends have.
        shapes: name -> shape of the base's tensors.
        template: name -> shape of the tensors in a camera's frame (`read_state` of a fresh adapter).
        scale: what a reply's factor products are multiplied by, alpha / r.
        dtype: of the frames down: fp32, fp16 or bf16.
        quorum: counted replies that a round needs; with fewer it is skipped and nothing changes.
        roster: node id -> camera; None: the grid's nodes, ascending, are cameras 0, 1, 2, ...
        draw: round -> the cameras to ask; None: all of them.
    """

    update_scale = 1.0
    """What an update's factor products are multiplied by when it is folded."""

    def __init__(
        self,
        *,
        base: str,
        shapes: Mapping[str, Size],
        template: Mapping[str, Size],
        scale: float = 1.0,
        dtype: str = "fp32",
        quorum: int = 1,
        roster: Mapping[int, int] | None = None,
        draw: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        self.base, self.shapes, self.template, self.scale = base, shapes, template, scale
        self.dtype, self.quorum, self.draw = dtype, quorum, draw
        self.roster: dict[int, int] = dict(roster or {})
        self.updates: list[Update] = []
        self.confirmed: dict[int, int] = {}  # camera -> the last round it says it has folded
        self.evaluations: dict[int, RecordDict] = {}
        self.report = RoundReport(0, [])

    @abstractmethod
    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, dict[str, DeltaSum]]:
        """The round's update and the exact mean of its deltas, from (state, weight) in camera order; weights sum to 1."""

    def settle(self, sent: dict[str, DeltaSum]) -> None:
        """Told what cameras gain from the update as they decode it, by weight name; the round is final."""

    @property
    def folded_round(self) -> int:
        """The round of the last update, 0 before the first."""
        return self.updates[-1].round if self.updates else 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the round's drawn cameras to train; `arrays` is not needed, each camera has its own running base."""
        cameras = self._everyone(grid) if self.draw is None else sorted(self.draw(server_round))
        self.report = RoundReport(server_round, [Reply(camera) for camera in cameras])
        return self._messages(cameras, MessageType.TRAIN, server_round, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies and make the round's update; (None, None) where the quorum is not met."""
        base, report = running_fingerprint(self.base, self.folded_round), self.report
        report.replies = judge(replies, self.roster, [r.camera for r in report.replies], base, self.template)
        counted = [reply for reply in report.replies if reply.counted]
        self.confirmed |= {reply.camera: self.folded_round for reply in counted}
        report.skipped = len(counted) < max(1, self.quorum)
        if report.skipped:
            return None, None
        examples = sum(reply.num_examples for reply in counted)
        update, exact = self.combine((decode(r.frame, base=base), r.num_examples / examples) for r in counted)
        frame = encode(update, dtype=self.dtype, base=base)
        # Cameras fold what the codec left of the update, so the server goes on from that too.
        sent = sum_states([(decode(frame, base=base), 1.0)], self.shapes, self.update_scale)
        report.aggregation_error = relative_distance(sent, exact)
        self.settle(sent)
        self.updates.append(Update(server_round, frame))
        loss = sum(reply.train_loss * reply.num_examples for reply in counted) / examples
        return frame_record(frame), MetricRecord({"num-examples": examples, "train-loss": loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every camera what it has not confirmed, this round's update first of all, and ask it to evaluate."""
        self.evaluations = {}
        return self._messages(self._everyone(grid), MessageType.EVALUATE, server_round, config)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The examples-weighted mean of the cameras' metrics; each camera's own are kept in `evaluations`."""
        for message in replies:
            camera = self.roster.get(message.metadata.src_node_id)
            if camera is not None and message.has_content():
                self.evaluations[camera] = message.content
                self._confirm(camera, message.content)
        contents = [self.evaluations[camera] for camera in sorted(self.evaluations)]
        return aggregate_metricrecords(contents, "num-examples") if contents else None

    def summary(self) -> None:
        """Nothing to log beyond the config that the run records."""

    def _everyone(self, grid: Grid) -> list[int]:
        if not self.roster:
            self.roster = {node: camera for camera, node in enumerate(sorted(grid.get_node_ids()))}
        return sorted(self.roster.values())

    def _messages(
        self, cameras: Collection[int], message_type: str, server_round: int, config: ConfigRecord
    ) -> list[Message]:
        config["server-round"] = server_round
        nodes = {camera: node for node, camera in self.roster.items()}
        # Cameras that have the same updates get the same content: built and weighed once.
        contents = {have: self._content(have, config) for have in {self.confirmed.get(camera, 0) for camera in cameras}}
        weights = {have: self._weight(have, content, message_type) for have, content in contents.items()}
        messages = []
        for camera in cameras:
            have = self.confirmed.get(camera, 0)
            messages.append(Message(contents[have], dst_node_id=nodes[camera], message_type=message_type))
            if message_type == MessageType.TRAIN or weights[have].frame_bytes:  # an evaluation alone is not billed
                self.report.down[camera] = self.report.down.get(camera, Weight()) + weights[have]
                self.report.updates_sent += len(self._missed(have))
        return messages

    def _missed(self, have: int) -> list[Update]:
        return [update for update in self.updates if update.round > have]

    def _content(self, have: int, config: ConfigRecord) -> RecordDict:
        content = RecordDict({update_key(update.round): frame_record(update.frame) for update in self._missed(have)})
        content[CONFIG_KEY] = config
        return content

    def _weight(self, have: int, content: RecordDict, message_type: str) -> Weight:
        frames = [update.frame for update in self._missed(have)]
        payload = sum(inspect(frame).payload_bytes for frame in frames)
        return Weight(payload, sum(map(len, frames)), message_bytes(content, message_type))

    def _confirm(self, camera: int, content: RecordDict) -> None:
        for record in content.metric_records.values():
            folded = record.get("folded-round")
            if isinstance(folded, int) and 0 <= folded <= self.folded_round:
                self.confirmed[camera] = folded
