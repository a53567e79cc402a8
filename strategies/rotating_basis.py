"""FedAvg over a basis that is drawn anew each round, from a seed that both ends have: FFA-LoRA (Sun et al. 2024, arXiv
2403.12313) whose A does not stay, so that what rounds add up to is of ever higher rank."""

from collections.abc import Iterable
from dataclasses import dataclass

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.aggregation.aggregators import ClientDelta, Mean
from fed_lorac.aggregation.delta_sum import State, Sums
from fed_lorac.aggregation.server_optimizers import Sgd
from fed_lorac.runtime.settings import setting
from fed_lorac.server.strategy import Proposal, ServerState, Strategy

from .fedavg import decode_state, mean_state

__all__ = ["RotatingBasis"]


@dataclass(frozen=True)
class RotatingBasis(Strategy):
    """The mean state over the round's own basis. Moments would be of bases that are gone, so there are none."""

    source = "FedAvg of FFA-LoRA (arXiv 2403.12313), its A drawn anew each round"
    exact = True
    rotates = True
    one_rank = True
    update_kind = "state"

    server_lr: float = setting(1.0, "the server's learning rate: the mean is multiplied by it", above=0)

    def refuses(self, adapter: Adapter) -> str | None:
        """What draws nothing, or does not freeze it. Of an adapter that could, give `with_frozen_basis()`."""
        if adapter.linear and adapter.with_frozen_basis() is not None:
            return None
        return (
            "A basis that is drawn anew each round is one that the adapter draws and freezes, so that the delta is "
            f"linear in what is trained; {type(adapter).__name__} has none. Use FfaLoraC or AdditiveDecomposition, or "
            "FedAvg."
        )

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """As FedAvg's, within the round."""
        return mean_state(server, deltas, Mean(), Sgd(self.server_lr))

    def decode_update(self, server: ServerState, update: State) -> Sums:
        """What the mean state says over the round's basis."""
        return decode_state(server, update)
