"""A strategy: the geometric median of what cameras send, which a few bad cameras cannot move far (RFA, Pillutla et al.
2022, arXiv 1912.13445, algorithm 2)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.aggregation.aggregators import ClientDelta, DeltaMean
from fed_lorac.aggregation.delta_sum import State, Sums, sum_states
from fed_lorac.runtime.settings import setting
from fed_lorac.server.strategy import Proposal, ServerState, Strategy

__all__ = ["GeometricMedian"]


@dataclass(frozen=True)
class GeometricMedian(Strategy):
    """z = argmin sum_k a_k ||z - s_k||, over the cameras' states s_k and shares a_k, by smoothed Weiszfeld steps."""

    source = "RFA, arXiv 1912.13445"
    exact = False
    update_kind = "state"  # a state goes down, as small as those that come up
    steps: int = setting(4, "Weiszfeld steps from the mean", least=1)
    smoothing: float = setting(1e-6, "smallest distance that a camera's weight is divided by", above=0)

    def refuses(self, adapter: Adapter) -> str | None:
        """A state between states must be a delta between deltas."""
        if adapter.linear:
            return None
        return f"A geometric median of states needs a linear adapter; {type(adapter).__name__} is not. Use FfaLoraC."

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """Every state is kept, in float64, as distances are to all of them; the deltas are not."""
        mean, states, shares = DeltaMean(), [], []
        for one in deltas:
            mean.add(one)
            states.append(torch.cat([tensor.double().flatten() for _, tensor in sorted(one.state.items())]))
            shares.append(one.weight)
        points, share = torch.stack(states), torch.tensor(shares, dtype=torch.float64)
        weights = share
        for _ in range(self.steps):
            middle = weights @ points / weights.sum()
            weights = share / (points - middle).norm(dim=1).clamp_min(self.smoothing)
        middle = (weights @ points / weights.sum()).float()
        shapes = {name: tuple(server.spec.template[name]) for name in sorted(server.spec.template)}
        parts = middle.split([torch.Size(shape).numel() for shape in shapes.values()])
        update = {name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
        return Proposal(update, exact=mean.deltas())

    def decode_update(self, server: ServerState, update: State) -> Sums:
        """What the state says, as a delta."""
        delta = server.spec.to_delta(server.round)(update)
        return sum_states([(delta, 1.0)], server.spec.shapes, server.spec.scale)
