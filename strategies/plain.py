"""Plain averaging of what is trained as it is: full fine-tuning, norm layers, the classifier.

Every change goes up, the mean change goes down: FedAvg (McMahan et al. 2017, arXiv 1602.05629) on changes. Exact, as
the mean of changes is the change of the mean. Over all parameters it is the baseline that bytes are measured against.
"""

from collections.abc import Iterable

from strategies.arithmetic import DeltaSum, State
from strategies.base import FrameStrategy

__all__ = ["PlainFedAvg"]


class PlainFedAvg(FrameStrategy):
    """FedAvg over dense changes; arguments as `FrameStrategy`'s."""

    source = "FedAvg, arXiv 1602.05629, of changes"
    exact = True

    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, dict[str, DeltaSum]]:
        """The server's step by the mean change of every tensor."""
        steps = self.stepped(states)
        return {name: total.dense() for name, total in steps.items()}, steps
