"""FedAvg (McMahan et al. 2017, arXiv 1602.05629) over states: what cameras send is averaged as it is.

Exact where the delta is linear in the state, as the mean of linear images is the image of the mean: dense deltas, and
factors over a basis that is frozen and known to both ends. Over all parameters it is the baseline that bytes are
measured against.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.aggregation.aggregators import Aggregator, ClientDelta, Mean, TensorMean
from fed_lorac.aggregation.delta_sum import State, Sums, sum_states
from fed_lorac.aggregation.server_optimizers import ServerOptimizer, Sgd
from fed_lorac.server.strategy import Proposal, ServerState, Strategy

__all__ = ["FedAvg", "decode_state", "mean_state"]


@dataclass(frozen=True)
class FedAvg(Strategy):
    """The mean state goes down."""

    source = "FedAvg, arXiv 1602.05629, of states"
    exact = True
    one_rank = True
    update_kind = "state"

    aggregator: Aggregator = field(default_factory=Mean)
    server_optimizer: ServerOptimizer = field(default_factory=Sgd)

    @property
    def least_replies(self) -> int:
        """The aggregator's."""
        return self.aggregator.least_cameras

    def refuses(self, adapter: Adapter) -> str | None:
        """States that the delta is not linear in; and what acts on deltas where the states are none."""
        if not adapter.linear:
            return (
                "FedAvg averages what cameras send, so the delta must be linear in it, or the mean state is not that "
                f"of the mean delta; {type(adapter).__name__}'s is not. Use a linear adapter, such as ffa-lora-c "
                "(FfaLoraC), lora-xs (LoraXs) or norm-affine (NormAffine), or merge the deltas: merged (MergedFedAvg)."
            )
        if adapter.state_is_delta or (isinstance(self.aggregator, Mean) and not self.server_optimizer.elementwise):
            return None
        wrong = self.aggregator if self.server_optimizer.elementwise is False else self.server_optimizer
        return (
            f"{type(wrong).__name__} acts on deltas, and its result cannot be written as a state; the states of "
            f"{type(adapter).__name__} are none themselves, and their mean is what goes down. Use Sgd or Momentum of "
            "the Mean, or merge the deltas (MergedFedAvg)."
        )

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """The server's step by the mean state; beside it the step by the mean of what the states say."""
        return mean_state(server, deltas, self.aggregator, self.server_optimizer)

    def decode_update(self, server: ServerState, update: State) -> Sums:
        """What the mean state says."""
        return decode_state(server, update)


def mean_state(
    server: ServerState, deltas: Iterable[ClientDelta], aggregator: Aggregator, optimizer: ServerOptimizer
) -> Proposal:
    """The server's step by the mean of states."""
    if server.spec.states_are_deltas:
        steps, moments = optimizer.step(aggregator.aggregate(deltas, server.noise), server.sums)
        return Proposal({name: step.dense() for name, step in steps.items()}, exact=steps, sums=moments)
    states = TensorMean()
    exact, moments = optimizer.step(aggregator.aggregate(states.passing(deltas), server.noise), server.sums)
    steps, more = optimizer.step(states.tensors(), server.sums)
    kept = {kind: {**moments[kind], **more[kind]} for kind in moments}
    return Proposal({key: step.dense() for key, step in steps.items()}, exact, sums=kept)


def decode_state(server: ServerState, update: State) -> Sums:
    """What a state of the round says, as a delta."""
    return sum_states([(server.spec.to_delta(server.round)(update), 1.0)], server.spec.shapes, 1.0)
