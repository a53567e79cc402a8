"""Rounds over frames: asks cameras, judges replies, keeps every camera's base current. Knows Flower's Strategy; not
what is averaged, which each strategy says in `combine`.

One round: the drawn cameras are asked to train; their frames are combined into one update; the update goes to EVERY
camera at once, with the round's evaluation, and both ends fold it. A camera that did not confirm an update gets it
again with its next message, and so catches up.
"""

import copy
import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from fed_lorac.adapters.changes import changed_names, check_state
from fed_lorac.errors import RunError
from fed_lorac.running import fingerprint, named_tensors, running_fingerprint, shapes_of
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.wire.codec import TOPK_SHARE, by_name, decode, encode
from fed_lorac.wire.faults import RefusedFrameError
from fed_lorac.wire.meter import Weight
from strategies.arithmetic import DeltaSum, State, Sums, relative_distance, sum_states
from strategies.arrays import advanced, fitting
from strategies.centres import Centre
from strategies.enrolment import enrolled
from strategies.optimizers import ServerOptimizer
from strategies.outbox import Outbox, Update, Whole
from strategies.replies import Jury, Reply, mean_metrics, weighted_mean
from strategies.report import RoundReport

if TYPE_CHECKING:
    from fed_lorac.adapters.methods import Adapter

__all__ = ["FrameStrategy", "RoundReport", "Update"]

_log = logging.getLogger("flwr")


class FrameStrategy(Strategy):
    """A Flower Strategy whose messages are frames; any ServerApp can `start` it.

    What a camera is sent: the updates it has not confirmed (`wire.updates.unfolded` reads them), or with `whole` the
    base itself in the stead of several, and Flower's record
    "config" with `server-round`. What it answers when asked to train: one ArrayRecord, `wire.meter.frame_record` of
    its frame, and one MetricRecord with `num-examples` and, as it likes, `train-loss`; when asked to evaluate: a
    MetricRecord with `num-examples`, `folded-round` (the last round it has folded) and metrics of its own.

    `start` keeps the arrays that it is given current, W_{t+1} = W_t + D: give it the starting base's state_dict, and
    `evaluate_fn` and the result see the global model; give it none where cameras alone evaluate.

    Args:
        base: fingerprint of the starting base, which both ends have (`running.fingerprint`).
        shapes: name -> shape of the base's tensors.
        template: name -> shape of the tensors in a camera's frame (`read_state` of a fresh adapter).
        scale: what a reply's factor products are multiplied by, alpha / r.
        dtype: of the frames down: a name in `wire.codecs.CODECS`.
        topk_share, seed: of those frames: what topk sends, and whose ("codec", "server", round) others draw from.
        quorum: counted replies that a round needs; with fewer it is skipped and nothing changes.
        roster: node id -> camera; None: the grid's nodes become cameras 0, 1, 2, ... as they register.
        draw: round -> the cameras to ask, in the order in which they are asked and summed; None: all of them.
        away: round -> the cameras that cannot be reached in it: they are told nothing and catch up later; None: none.
        server, centre: how the server steps by the mean, or what else stands for it; None: takes it as it is.
        whole: the base that all updates lead to, as one frame that cameras know to read (`bases.whole_frame`): sent to
            who missed several updates, where it is smaller than they are; None: updates alone.
        judge: (a reply, what its camera was asked with) -> the reply as it counts, the late ones left out.

    Raises:
        FactorError: the template does not fit the shapes.
        FrameError: no such dtype.
    """

    source: ClassVar[str]
    """Where the strategy is from: a paper with its arXiv id."""

    exact: ClassVar[bool]
    """Whether its mean is that of the decoded deltas, for every adapter that it accepts, before the downlink codec."""

    wait_s = 120.0
    """How long a round waits for a quorum of nodes to register, where there is no roster."""

    def __init__(
        self,
        *,
        base: str,
        shapes: Mapping[str, Sequence[int]],
        template: Mapping[str, Sequence[int]],
        scale: float = 1.0,
        dtype: str = "fp32",
        topk_share: float = TOPK_SHARE,
        seed: int = 0,
        quorum: int = 1,
        roster: Mapping[int, int] | None = None,
        draw: Callable[[int], Sequence[int]] | None = None,
        away: Callable[[int], Collection[int]] | None = None,
        server: ServerOptimizer | None = None,
        centre: Centre | None = None,
        whole: Whole | None = None,
        judge: Callable[[Reply, Weight], Reply] = lambda reply, asked: reply,
    ) -> None:
        check_state({name: torch.empty(tuple(shape), device="meta") for name, shape in template.items()}, shapes)
        self.base, self.shapes, self.template, self.scale = base, shapes, template, scale
        self.dtype, self.quorum, self.draw = by_name(dtype).name, max(1, quorum), draw
        self.away, self.judge, self.topk_share, self.seed = away, judge, topk_share, seed
        self.server, self.centre = server or ServerOptimizer(), centre or Centre()
        self.roster: dict[int, int] = dict(roster or {})
        self._enrols = False
        self.kept: Sums = {}
        self._moments: Sums = {}
        self._outbox = Outbox(whole=whole)
        self._arrays = ArrayRecord()
        self.evaluations: dict[int, RecordDict] = {}
        self.report = RoundReport(0, [])

    @classmethod
    def for_model(cls, model: nn.Module, adapter: "Adapter", **settings: Any) -> Self:
        """A strategy for a plain network and the way that cameras adapt it, which is left as it is.

        `MergedFedAvg.for_model(model, LoraC(rank=2, alpha=4.0), quorum=3)`, with `fed_lorac.adapters.methods.LoraC`.
        """
        twin = copy.deepcopy(model)
        adapter.attach(twin, torch_stream(0, "template"))
        template = {name: tensor.shape for name, tensor in adapter.read(twin).items()}
        base = fingerprint(named_tensors(model))
        return cls(base=base, shapes=shapes_of(model), template=template, scale=adapter.scale, **settings)

    def resume(self, updates: Iterable[Update], confirmed: Mapping[int, int], kept: Mapping[str, DeltaSum]) -> None:
        """Go on where another object of this class stood: its `updates`, what was `confirmed`, and what it `kept`.

        `kept` are sums that outlive a round, by "<kind>/<tensor>": svd's residual, carried factors, moments.
        """
        self._outbox = Outbox(list(updates), dict(confirmed), self._outbox.whole)
        self.kept = dict(kept)

    @abstractmethod
    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, dict[str, DeltaSum]]:
        """The round's update and the exact mean of its deltas, from (state, weight) given one by one as they come.

        There is at least one, and weights are above 0; they sum to anything. Changes nothing that a round which is
        skipped after all would miss: that is for `settle`.
        """

    def stepped(self, states: Iterable[tuple[State, float]]) -> Sums:
        """The server's step by what stands for the states' deltas; its moments are kept once `settle` is told."""
        noise = ("noise", self.report.round)
        found = self.centre.of(states, self.shapes, self.scale, lambda: torch_stream(self.seed, *noise))
        steps, self._moments = self.server.step(found, self.kept)
        return steps

    def settle(self, sent: Sums) -> Sums:
        """Told what the update says as cameras decode it, which makes it final; returns what their weights gain."""
        self.kept, self._moments = self._moments, {}
        return sent

    @property
    def update_scale(self) -> float:
        """What an update's factor products are multiplied by."""
        return 1.0

    @property
    def updates(self) -> list[Update]:
        """Every update so far, the first round's first."""
        return self._outbox.updates

    @property
    def confirmed(self) -> dict[int, int]:
        """Camera -> the last round that it says it has folded."""
        return self._outbox.confirmed

    @property
    def folded_round(self) -> int:
        """The round of the last update, 0 before the first."""
        return self._outbox.folded_round

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the round's drawn cameras to train; each has its own running base, so `arrays` are not sent."""
        if server_round <= self.folded_round:
            raise RunError(
                f"Rounds go up; round {server_round} was asked for after round {self.folded_round}. "
                "Cameras have folded those: make a new strategy for a new run."
            )
        self._arrays = fitting(arrays, changed_names(self.template))
        everyone = self._everyone(grid)
        cameras = everyone if self.draw is None else list(self.draw(server_round))
        if strangers := sorted(set(cameras) - set(everyone)):
            raise RunError(f"A round draws cameras of its roster, {len(everyone)} here; it drew {strangers[:5]} too.")
        self.report = RoundReport(server_round, [Reply(camera) for camera in cameras])
        return self._messages(cameras, MessageType.TRAIN, server_round, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies as they come and make the round's update; (None, None) where the quorum is not met."""
        base, report = running_fingerprint(self.base, self.folded_round), self.report
        jury = Jury(self.roster, [reply.camera for reply in report.replies], base, self.template, self._judged)
        made = self._combined(jury.states(replies))
        report.replies = list(jury.verdicts.values())
        counted = [reply for reply in report.replies if reply.counted]
        for reply in counted:  # its frame is for the current base, so it has folded all
            self._outbox.confirm(reply.camera, self.folded_round)
        gained = self._advance(server_round, *made, base) if made and len(counted) >= self.quorum else None
        report.skipped = gained is None
        if gained is None:
            return None, None
        metrics = MetricRecord({"num-examples": sum(reply.num_examples for reply in counted)})
        loss = weighted_mean((reply.train_loss, reply.num_examples) for reply in counted)
        if math.isfinite(loss):
            metrics["train-loss"] = loss
        return advanced(self._arrays, gained), metrics

    def _judged(self, reply: Reply) -> Reply:
        return self.judge(reply, self.report.down.get(reply.camera, Weight()))

    def _combined(self, states: Iterator[tuple[State, int]]) -> tuple[State, dict[str, DeltaSum]] | None:
        """The update of these states; None where there is not one."""
        if (first := next(states, None)) is None:
            return None
        return self.combine(chain([first], states))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every camera what it has not confirmed, this round's update first of all, and ask it to evaluate."""
        self.evaluations = {}
        away = self.away(server_round) if self.away and server_round else ()
        cameras = [camera for camera in self._everyone(grid) if camera not in away]
        return self._messages(cameras, MessageType.EVALUATE, server_round, config)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The examples-weighted mean of the cameras' metrics; each camera's own are kept in `evaluations`."""
        for message in replies:
            camera = self.roster.get(message.metadata.src_node_id)
            if camera is not None and message.has_content():
                self.evaluations[camera] = message.content
                for metrics in message.content.metric_records.values():
                    self._outbox.confirm(camera, metrics.get("folded-round"))
        return mean_metrics(self.evaluations[camera] for camera in sorted(self.evaluations))

    def summary(self) -> None:
        """Say in Flower's log what is averaged, and how it goes down."""
        _log.info("\t├──> base %s, %d tensors in a frame up", self.base, len(self.template))
        _log.info("\t└──> %s frames down, quorum %d", self.dtype, self.quorum)

    def _advance(
        self, server_round: int, update: State, exact: dict[str, DeltaSum], base: str
    ) -> dict[str, DeltaSum] | None:
        """The update put out; what weights gain by it. None, and nothing changed, where it cannot be sent."""
        report = self.report
        try:
            rng = stream(self.seed, "codec", "server", server_round)
            frame = encode(update, dtype=self.dtype, base=base, rng=rng, topk_share=self.topk_share)
        except RefusedFrameError as error:  # a mean beyond fp16, for one
            why = f"the update is refused: {error.reason}"
            report.replies = [replace(r, counted=False, reason=why) if r.counted else r for r in report.replies]
            return None
        # Cameras fold what the codec left of the update, so the server goes on from that too.
        sent = sum_states([(decode(frame, base=base), 1.0)], self.shapes, self.update_scale)
        report.aggregation_error = relative_distance(sent, exact)
        self._outbox.updates.append(Update(server_round, frame))
        return self.settle(sent)

    def _everyone(self, grid: Grid) -> list[int]:
        """Every camera of the roster; where none was given, nodes are enrolled as they register."""
        if self._enrols or not self.roster:
            self._enrols = True
            self.roster = enrolled(grid, self.roster, at_least=self.quorum, wait_s=self.wait_s)
        return sorted(self.roster.values())

    def _messages(
        self, cameras: Collection[int], message_type: str, server_round: int, config: ConfigRecord
    ) -> list[Message]:
        config["server-round"] = server_round
        nodes, report = {camera: node for node, camera in self.roster.items()}, self.report
        parcels = self._outbox.parcels(cameras, config, message_type)
        for camera, parcel in parcels.items():
            report.caught_up[parcel.updates] += 1
            if message_type == MessageType.TRAIN or parcel.updates:  # an evaluation alone is not billed
                report.down[camera] = report.down.get(camera, Weight()) + parcel.weight
        return [
            Message(parcel.content, dst_node_id=nodes[camera], message_type=message_type)
            for camera, parcel in parcels.items()
        ]
