"""Plain averaging of states that are linear in what they change: dense changes, and factors over a basis that is frozen
and known to both ends.

The mean state goes down: FedAvg (McMahan et al. 2017, arXiv 1602.05629) on states. Exact, as the mean of linear images
is the image of the mean; over all parameters it is the baseline that bytes are measured against. With a rotating basis
the frozen part is drawn anew each round, and what rounds add up to is of ever higher rank.
"""

from collections.abc import Iterable
from typing import Any, Self

from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.aggregation.delta_sum import MeanApart, State, Sums
from fed_lorac.errors import ConfigError
from fed_lorac.server.frame_strategy import FrameStrategy

__all__ = ["FedAvg", "RotatingBasis"]


class FedAvg(FrameStrategy):
    """FedAvg over states; arguments as `FrameStrategy`'s.

    Raises:
        ConfigError: a server optimizer or an aggregator that acts on each entry of a change, with states that are not
            changes themselves: what it makes of the change is no state; or, in `for_model`, an adapter that is not
            linear.
    """

    source = "FedAvg, arXiv 1602.05629, of states"
    exact = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self._are_changes = set(self.template) == set(self.changes)
        if not self._are_changes and (self.aggregator.name != "mean" or self.server.name not in ("sgd", "momentum")):
            raise ConfigError(
                "Where states are expanded, their mean is one too and goes down as it is; a server that steps by "
                f"{self.server.name!r} from an aggregator {self.aggregator.name!r} makes a change that is no state. "
                "Use mean with average or momentum, or merge the changes (MergedFedAvg)."
            )

    @classmethod
    def for_model(cls, model: nn.Module, adapter: Adapter, **settings: Any) -> Self:
        """As `FrameStrategy`'s, for linear adapters."""
        if not adapter.linear:
            raise ConfigError(
                "Plain averaging is of states that changes are linear in, or the mean is not that of the changes; came "
                f"a {type(adapter).__name__}. Choose a linear adapter, or merge the changes (MergedFedAvg)."
            )
        return super().for_model(model, adapter, **settings)

    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, Sums]:
        """The server's step by the mean state; beside it the step by the mean of what the states say."""
        if self._are_changes:
            steps = self.stepped(states)
            return {name: total.dense() for name, total in steps.items()}, steps
        apart = MeanApart()
        exact = self.stepped(apart.passing(states))
        moves, moments = self.server.step(apart.tensors(), self.kept)
        self._moments |= moments
        return {key: total.dense() for key, total in moves.items()}, exact

    def told(self, update: State) -> State:
        """What the mean state says."""
        return self.expand(update)


class RotatingBasis(FedAvg):
    """Plain averaging over a basis that is drawn anew each round, from a seed that both ends have.

    Moments would be of bases that are gone, so the server takes the mean as it is.

    Raises:
        ConfigError: as `FedAvg`; a server with moments; or states that are changes already, over no basis.
    """

    source = "FedAvg of FFA-LoRA (arXiv 2403.12313), its A drawn anew each round"
    rotates = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        if self._are_changes:
            raise ConfigError(
                "A basis that is drawn anew each round is one that adapters draw and freeze; the states that came, "
                f"{sorted(self.template)[:3]} and so on, are changes as they are. Use FfaLoraC or "
                "AdditiveDecomposition, or plain averaging."
            )
        if self.server.name != "sgd":
            raise ConfigError(
                "Moments add up what rounds have in common; a rotating basis has nothing in common between them, and "
                f"came with a server that steps by {self.server.name!r}. Use sgd."
            )
