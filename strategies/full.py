"""Full fine-tuning: the baseline whose bytes every other method is measured against.

Every parameter's change goes up, the mean change goes down: FedAvg (McMahan et al. 2017, arXiv 1602.05629) on changes.
"""

from collections.abc import Iterable

from strategies.arithmetic import DeltaSum, State
from strategies.base import FrameStrategy

__all__ = ["FullFedAvg"]


class FullFedAvg(FrameStrategy):
    """Plain FedAvg over dense changes; arguments as `FrameStrategy`'s."""

    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, dict[str, DeltaSum]]:
        """The mean change of every tensor."""
        exact = self.mean_of(states).deltas()
        return {name: total.dense() for name, total in exact.items()}, exact
