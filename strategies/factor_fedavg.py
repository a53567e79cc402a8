"""The naive control: A and B averaged apart, as FLoCoRA (arXiv 2406.14082) and most LoRA-in-FL code do.

`mean(B) @ mean(A)` is not the mean of the products, so the average is off by what the ledger's `aggregation_error`
says. The averaged factors are carried over to the next round; only what is trained beside them is folded.
"""

from collections.abc import Iterable

from fed_lorac.adapters.deltas import pair_of
from fed_lorac.aggregation.delta_sum import DeltaSum, Mean, MeanApart, State
from fed_lorac.server.frame_strategy import FrameStrategy

__all__ = ["FactorFedAvg"]


_CARRIED = "carried/"  # before a tensor's name in what is kept


class FactorFedAvg(FrameStrategy):
    """Inexact averaging of factors, for comparison; arguments as `FrameStrategy`'s."""

    source = "FLoCoRA, arXiv 2406.14082"
    exact = False

    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, dict[str, DeltaSum]]:
        """The mean of every tensor apart; beside it the mean it should have been."""
        mean, apart = Mean(self.shapes, self.scale), MeanApart()
        for state, weight in apart.passing(states):
            mean.add(state, weight)
        return {key: total.dense() for key, total in apart.tensors().items()}, mean.deltas()

    def settle(self, sent: dict[str, DeltaSum]) -> dict[str, DeltaSum]:
        """New factors take the place of the old: their products' difference is what weights gain."""
        gained = {name: DeltaSum(total.shape).add(total) for name, total in sent.items()}
        for key, total in self.kept.items():
            gained[key.removeprefix(_CARRIED)].add(total, -1.0)
        self.kept = {_CARRIED + name: total for name, total in sent.items() if pair_of(self.template, name) is not None}
        return gained

    @property
    def update_scale(self) -> float:
        """The averaged factors stay factors: their product is scaled where it is used."""
        return self.scale
