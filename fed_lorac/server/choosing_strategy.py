"""The round that chooses layers: of what cameras say of each, the server makes one choice, and sends it as an update.
Knows frames and budgets; not gradients, nor what is averaged in the rounds after."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, MetricRecord

from fed_lorac.adapters.choice import NORMS_KEY, Budget, choice_state, chosen_in
from fed_lorac.aggregation.delta_sum import Sums
from fed_lorac.server.fleet_strategy import Update
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.replies import train_metrics
from fed_lorac.server.strategy import FrameSpec, Notes, Strategy
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import global_fingerprint

__all__ = ["ChoosingStrategy", "LayerChoice"]


@dataclass(frozen=True, eq=False)
class LayerChoice:
    """What layers are chosen from, and what is agreed on with cameras once they are: layers -> spec."""

    budget: Budget
    spec_of: Callable[[tuple[str, ...]], FrameSpec]


class ChoosingStrategy(FrameStrategy):
    """A FrameStrategy whose first round that meets its quorum chooses the layers that adapters are on.

    In it cameras train nothing: each sends the relative gradient norm of every layer, the server averages them by
    images and takes the layers of the largest that fit the budget, and the choice goes down as the round's update.

    Args:
        choice: what is chosen from.
        spec: what is agreed on where adapters are on all layers: its base and shapes hold for any.
        more: as `FrameStrategy`'s.
    """

    def __init__(self, strategy: Strategy, spec: FrameSpec, choice: LayerChoice, **more: Any) -> None:
        super().__init__(strategy, spec, **more)
        self._choice = choice

    def resume(
        self, updates: Iterable[Update], confirmed: Mapping[int, int], sums: Mapping[str, Sums], notes: Notes
    ) -> None:
        """As `FrameStrategy`'s; the first update says what was chosen."""
        updates = list(updates)
        super().resume(updates, confirmed, sums, notes)
        if updates:
            said = decode(updates[0].frame, base=global_fingerprint(self.spec.base, 0), templates=self.spec.templates)
            self._settle(chosen_in(self._choice.budget.layers, said))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The choice, where there is none yet; else as `FrameStrategy`'s."""
        if self.chosen:
            return super().aggregate_train(server_round, replies)
        budget, report = self._choice.budget, self.report
        collector = self._collector(lambda camera: {NORMS_KEY: (len(budget.layers),)})
        total, examples = torch.zeros(len(budget.layers), dtype=torch.float64), 0
        for _, state, images in collector.states(replies):
            total.add_(state[NORMS_KEY].double(), alpha=images)
            examples += images
        report.replies = list(collector.verdicts.values())
        counted = [reply for reply in report.replies if reply.counted]
        report.skipped = len(counted) < self.quorum
        if report.skipped:
            return None, None
        report.layers = budget.choose(total / examples)
        report.needed_bytes = budget.needed_bytes(report.layers)
        state = choice_state(budget.layers, report.layers)
        known = () if self.spec.names_down else self.spec.templates
        frame = encode(state, dtype="fp16", base=global_fingerprint(self.spec.base, self.folded_round), templates=known)
        self._downlink.updates.append(Update(server_round, frame))
        self._settle(report.layers)
        return self._arrays, train_metrics(counted)

    def _settle(self, chosen: tuple[str, ...]) -> None:
        self.chosen = chosen
        self.agree(self._choice.spec_of(chosen))
