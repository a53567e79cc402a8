"""The round that settles what adapters are: of what cameras say of their layers, the server makes a choice of layers,
or bases, and sends it as an update. Knows frames and surveys; not gradients, nor what is averaged in rounds after."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.bases import state_of
from fed_lorac.adapters.choice import NORMS_KEY, Budget, choice_state
from fed_lorac.adapters.settled import NOTHING, Settled, settled_in
from fed_lorac.aggregation.delta_sum import Sums
from fed_lorac.server.fleet_strategy import Update
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.replies import RoundReport, train_metrics
from fed_lorac.server.strategy import FrameSpec, Notes, Shapes, Strategy
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import global_fingerprint

__all__ = ["BasisSurvey", "LayerSurvey", "SettlingStrategy", "Survey"]


@dataclass(frozen=True, eq=False)
class Survey(ABC):
    """What cameras are asked for, what is made of the mean of their replies, and what is agreed on with them once it is
    settled: settled -> spec."""

    spec_of: Callable[[Settled], FrameSpec]

    @property
    @abstractmethod
    def asks(self) -> Shapes:
        """Name -> shape of the tensors of a camera's reply."""

    @abstractmethod
    def settle(self, mean: Mapping[str, Tensor], report: RoundReport) -> dict[str, Tensor]:
        """The state that tells what is settled, of the mean reply; the report says of it what a row of the ledger has.
        Others know it as it is decoded."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that may be chosen."""
        return ()


@dataclass(frozen=True, eq=False)
class LayerSurvey(Survey):
    """The layers of the largest relative gradient norms that fit a budget."""

    budget: Budget

    @property
    def asks(self) -> Shapes:
        """A norm for each layer."""
        return {NORMS_KEY: (len(self.layers),)}

    @property
    def layers(self) -> tuple[str, ...]:
        """The budget's."""
        return self.budget.layers

    def settle(self, mean: Mapping[str, Tensor], report: RoundReport) -> dict[str, Tensor]:
        """The choice."""
        report.layers = self.budget.choose(mean[NORMS_KEY])
        report.needed_bytes = self.budget.needed_bytes(report.layers)
        return choice_state(self.layers, report.layers)


@dataclass(frozen=True, eq=False)
class BasisSurvey(Survey):
    """Bases of the mean gradients (Fed-SB, arXiv 2502.15436): `shapes` are those of the weights that `adapter` asks
    for, by layer."""

    adapter: Adapter
    shapes: Shapes

    @property
    def asks(self) -> Shapes:
        """A gradient for each of these weights."""
        return {f"{name}.weight": shape for name, shape in self.shapes.items()}

    def settle(self, mean: Mapping[str, Tensor], report: RoundReport) -> dict[str, Tensor]:
        """What their leading singular vectors span."""
        return state_of(self.adapter.bases_of({name: mean[f"{name}.weight"] for name in self.shapes}))


class SettlingStrategy(FrameStrategy):
    """A FrameStrategy whose first round that meets its quorum settles what adapters are.

    In it cameras train nothing: each sends what the survey asks for, the server averages that by images, and what it
    makes of the mean goes down as the round's update.

    Args:
        survey: what is asked for and settled.
        spec: what is agreed on until then: its base and shapes hold after it.
        more: as `FrameStrategy`'s.
    """

    def __init__(self, strategy: Strategy, spec: FrameSpec, survey: Survey, **more: Any) -> None:
        super().__init__(strategy, spec, **more)
        self._survey = survey

    def resume(
        self, updates: Iterable[Update], confirmed: Mapping[int, int], sums: Mapping[str, Sums], notes: Notes
    ) -> None:
        """As `FrameStrategy`'s; the first update says what was settled."""
        updates = list(updates)
        super().resume(updates, confirmed, sums, notes)
        if updates:
            self._settle(updates[0].frame, global_fingerprint(self.spec.base, 0))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What is settled, where nothing is yet; else as `FrameStrategy`'s."""
        if self.settled != NOTHING:
            return super().aggregate_train(server_round, replies)
        report, asks = self.report, self._survey.asks
        collector = self._collector(lambda camera: asks)
        totals, examples = {n: torch.zeros(tuple(shape), dtype=torch.float64) for n, shape in asks.items()}, 0
        for _, state, images in collector.states(replies):
            for name, total in totals.items():
                total.add_(state[name].double(), alpha=images)
            examples += images
        report.replies = list(collector.verdicts.values())
        counted = [reply for reply in report.replies if reply.counted]
        report.skipped = len(counted) < self.quorum
        if report.skipped:
            return None, None
        state = self._survey.settle({name: total / examples for name, total in totals.items()}, report)
        base = global_fingerprint(self.spec.base, self.folded_round)
        frame = encode(state, dtype="fp16", base=base, templates=() if self.spec.names_down else self.spec.templates)
        self._downlink.updates.append(Update(server_round, frame))
        self._settle(frame, base)
        return self._arrays, train_metrics(counted)

    def _settle(self, frame: bytes, base: str) -> None:
        said = decode(frame, base=base, templates=self.spec.templates)
        self.settled = settled_in(said, self._survey.layers)
        self.agree(self._survey.spec_of(self.settled))
