"""Rounds over frames: judges cameras' frames as they come, combines them into one update. Knows Flower's records and
frames; not what is averaged, which each strategy says in `combine`, nor who is asked and told (`traffic`)."""

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Self

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import nn

from fed_lorac.adapters.adapter import ToDelta, is_delta_already
from fed_lorac.adapters.deltas import changed_names
from fed_lorac.aggregation.aggregators import Aggregator
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, relative_distance, sum_states
from fed_lorac.aggregation.server_optimizers import ServerOptimizer
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.server.arrays import advanced, fitting
from fed_lorac.server.downlink import Update
from fed_lorac.server.fleet_strategy import FleetStrategy
from fed_lorac.server.frame_spec import delta_shapes, terms_of
from fed_lorac.server.replies import Reply, ReplyCollector, train_metrics
from fed_lorac.server.round_report import RoundReport
from fed_lorac.wire.billing import MessageSize
from fed_lorac.wire.frame import TOPK_SHARE, by_name, decode, encode
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.updates import global_fingerprint

if TYPE_CHECKING:
    from fed_lorac.adapters.adapter import Adapter

__all__ = ["FrameStrategy", "RoundReport", "Update"]

_log = logging.getLogger("flwr")


class FrameStrategy(FleetStrategy):
    """A Flower Strategy whose messages are frames; any ServerApp can `start` it.

    What a camera answers when asked to train: one ArrayRecord, `wire.meter.frame_record` of its frame, and one
    MetricRecord with `num-examples` and, as it likes, `train-loss`.

    `start` keeps the arrays that it is given current, W_{t+1} = W_t + D: give it the starting base's state_dict, and
    `evaluate_fn` and the result see the global model; give it none where cameras alone evaluate.

    Args:
        base: fingerprint of the starting base, which both ends have (`running.fingerprint`).
        shapes: name -> shape of the base's tensors.
        template: name -> shape of the tensors in a camera's frame (`read_state` of a fresh adapter).
        scale: what a reply's factor products are multiplied by, alpha / r.
        to_delta: round -> what cameras' states of that round say, as changes (`Adapter.to_delta`).
        dtype: of the frames down: a name in `wire.codecs.CODECS`.
        topk_share, seed: of those frames: what topk sends, and whose ("codec", "server", round) others draw from.
        server, aggregator: how the server steps by the mean, or what else stands for it; None: takes it as it is.
        template_for: camera -> its frame's template, where cameras differ in rank; `template` is the largest.
        **traffic: quorum, roster and so on, see `FleetStrategy`.

    Raises:
        FactorError: the template does not fit the shapes.
        FrameError: no such dtype.
    """

    rotates: ClassVar[bool] = False
    """Whether what adapters draw and freeze is drawn anew for each round."""

    def __init__(
        self,
        *,
        base: str,
        shapes: Mapping[str, Sequence[int]],
        template: Mapping[str, Sequence[int]],
        scale: float = 1.0,
        to_delta: Callable[[int], ToDelta] = lambda round: is_delta_already,
        dtype: str = "fp32",
        topk_share: float = TOPK_SHARE,
        seed: int = 0,
        server: ServerOptimizer | None = None,
        aggregator: Aggregator | None = None,
        template_for: Callable[[int], Mapping[str, Sequence[int]]] | None = None,
        **traffic: Any,
    ) -> None:
        super().__init__(**traffic)
        self.base, self.shapes, self.template, self.scale = base, shapes, template, scale
        self.to_delta = to_delta
        self.changes = delta_shapes(template, to_delta, shapes)
        self._alike = template_for is None
        self.template_for = template_for or (lambda camera: template)
        self.dtype, self.topk_share, self.seed = by_name(dtype).name, topk_share, seed
        self.server, self.aggregator = server or ServerOptimizer(), aggregator or Aggregator()
        self._moments: Sums = {}
        self.speaker = -1

    @classmethod
    def for_model(cls, model: nn.Module, adapter: "Adapter", **settings: Any) -> Self:
        """A strategy for a plain network and the way that cameras adapt it, which is left as it is.

        `MergedFedAvg.for_model(model, LoraC(rank=2, alpha=4.0), quorum=3)`, with `fed_lorac.adapters.methods.LoraC`.
        Cameras attach it by the stream (seed, "adapter", round) where the strategy `rotates`, else of round 0.
        """
        terms = terms_of(model, adapter, settings.get("seed", 0), rotates=cls.rotates)
        return cls(**terms, **settings)

    @abstractmethod
    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, dict[str, DeltaSum]]:
        """The round's update and the exact mean of its deltas, from (state, weight) given one by one as they come.

        There is at least one, and weights are above 0; they sum to anything. `speaker` is the camera of the one that
        came last. Changes nothing that a round which is skipped after all would miss: that is for `settle`.
        """

    def stepped(self, states: Iterable[tuple[State, float]]) -> Sums:
        """The server's step by what stands for the states' deltas; its moments are kept once `settle` is told."""
        noise = ("noise", self.report.round)
        changes = map(self._to_delta, states)
        found = self.aggregator.of(changes, self.shapes, self.scale, lambda: torch_stream(self.seed, *noise))
        steps, self._moments = self.server.step(found, self.kept)
        return steps

    def expand(self, state: State) -> State:
        """What a camera's state of the round at hand says, as a change."""
        return dict(self.to_delta(self.report.round)(state))

    def prepare(self, server_round: int) -> None:
        """Make what goes down beside the round's update; RefusedFrameError, and nothing changed, where it cannot."""

    def settle(self, sent: Sums) -> Sums:
        """Told what the update says as cameras decode it, which makes it final; returns what their weights gain."""
        self.kept, self._moments = self._moments, {}
        return sent

    def distance(self, sent: Sums, exact: Sums) -> float:
        """How far what cameras decode is from the exact mean, relative (Frobenius)."""
        return relative_distance(sent, exact)

    def told(self, update: State) -> State:
        """The change that cameras make of a round's update: itself, unless it is a state too."""
        return update

    @property
    def update_scale(self) -> float:
        """What an update's factor products are multiplied by."""
        return 1.0

    def kind(self, camera: int) -> int:
        """By the size of what cameras send: those of one rank are of one kind."""
        return 0 if self._alike else sum(math.prod(shape) for shape in self.template_for(camera).values())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As `FleetStrategy`'s; `arrays` hold all that is adapted, or nothing."""
        return super().configure_train(server_round, fitting(arrays, changed_names(self.changes)), config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies as they come and make the round's update; (None, None) where the quorum is not met."""
        base, report = global_fingerprint(self.base, self.folded_round), self.report
        collector = ReplyCollector(
            self.roster, [reply.camera for reply in report.replies], base, self.template_for, self._judged
        )
        made = self._combined(collector.states(replies))
        report.replies = list(collector.verdicts.values())
        counted = [reply for reply in report.replies if reply.counted]
        for reply in counted:  # its frame is for the current base, so it has folded all
            self._downlink.confirm(reply.camera, self.folded_round)
        gained = self._advance(server_round, *made, base) if made and len(counted) >= self.quorum else None
        report.skipped = gained is None
        if gained is None:
            return None, None
        return advanced(self._arrays, gained), train_metrics(counted)

    def _judged(self, reply: Reply) -> Reply:
        return self.judge(reply, self.report.down.get(reply.camera, MessageSize()))

    def _combined(self, states: Iterator[tuple[int, State, int]]) -> tuple[State, dict[str, DeltaSum]] | None:
        """The update of these cameras' states; None where there is not one."""
        if (first := next(states, None)) is None:
            return None
        return self.combine(map(self._spoken, chain([first], states)))

    def _spoken(self, said: tuple[int, State, int]) -> tuple[State, int]:
        self.speaker = said[0]
        return said[1:]

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
            self.prepare(server_round)
        except RefusedFrameError as error:  # a mean beyond fp16, for one
            why = f"the update is refused: {error.reason}"
            report.replies = [replace(r, counted=False, reason=why) if r.counted else r for r in report.replies]
            return None
        # Cameras fold what the codec left of the update, so the server goes on from that too.
        sent = sum_states([(self.told(decode(frame, base=base)), 1.0)], self.shapes, self.update_scale)
        self._downlink.updates.append(Update(server_round, frame))
        gained = self.settle(sent)
        report.aggregation_error = self.distance(sent, exact)
        return gained

    def _to_delta(self, pair: tuple[State, float]) -> tuple[State, float]:
        return self.expand(pair[0]), pair[1]
