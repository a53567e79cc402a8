"""The naive control: A and B averaged apart, as FLoCoRA (arXiv 2406.14082) and most LoRA-in-FL code do.

`mean(B) @ mean(A)` is not the mean of the products, so the average is off by what the ledger's `aggregation_error`
says. The averaged factors are carried over to the next round; only what is trained beside them is folded.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import pair_of
from fed_lorac.aggregation.aggregators import ClientDelta, TensorMean, weighted_mean
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, sum_states
from fed_lorac.server.strategy import Proposal, ServerState, Strategy

__all__ = ["FactorFedAvg"]

_CARRIED = "carried"


@dataclass(frozen=True)
class FactorFedAvg(Strategy):
    """Inexact averaging of factors, for comparison."""

    source = "FLoCoRA, arXiv 2406.14082"
    exact = False
    one_rank = True
    update_kind = "factors"

    def refuses(self, adapter: Adapter) -> str | None:
        """What has no factors."""
        if adapter.has_factors:
            return None
        return (
            f"The naive average is of factors A and B apart; {type(adapter).__name__} has none to send. Use LoraC, "
            "Lorae or ConvLora, or another strategy (MergedFedAvg)."
        )

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """The mean of every tensor apart; beside it the mean it should have been."""
        apart = TensorMean()
        exact = weighted_mean(apart.passing(deltas))
        return Proposal({key: total.dense() for key, total in apart.tensors().items()}, exact)

    def commit(self, server: ServerState, proposal: Proposal, decoded: Sums) -> ServerState:
        """The products of the new factors are carried; they take the place of the old."""
        return server.with_(
            {_CARRIED: {name: total for name, total in decoded.items() if pair_of(server.spec.template, name)}}
        )

    def decode_update(self, server: ServerState, update: State) -> Sums:
        """The averaged factors stay factors: their product is scaled where it is used."""
        return sum_states([(update, 1.0)], server.spec.shapes, server.spec.scale)

    def gained(self, before: ServerState, after: ServerState, decoded: Sums) -> Sums:
        """Weights gain the difference between the new products and the old."""
        total = {name: DeltaSum(now.shape).add(now) for name, now in decoded.items()}
        for name, then in before.sums.get(_CARRIED, {}).items():
            total[name].add(then, -1.0)
        return total
