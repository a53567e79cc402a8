"""Stacking: every camera's factors side by side go down, whatever their size (FLoRA, Wang et al. 2024, arXiv
2409.05976). Their product is the mean of the products, exactly, and cameras may differ in rank."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.aggregation.aggregators import Aggregator, ClientDelta, Mean
from fed_lorac.aggregation.server_optimizers import ServerOptimizer, Sgd
from fed_lorac.server.strategy import Proposal, ServerState, Strategy

from .merged import MergedFedAvg, compress

__all__ = ["Flora"]


@dataclass(frozen=True)
class Flora(Strategy):
    """The mean of merged deltas, sent down as a stack of the cameras' factors."""

    source = "FLoRA, arXiv 2409.05976"
    exact = True
    draws_anew = True

    aggregator: Aggregator = field(default_factory=Mean)
    server_optimizer: ServerOptimizer = field(default_factory=Sgd)

    @property
    def least_replies(self) -> int:
        """The aggregator's."""
        return self.aggregator.least_cameras

    def refuses(self, adapter: Adapter) -> str | None:
        """What has no factors, or leaves none."""
        if not adapter.has_factors:
            return (
                f"Factors A and B are what is stacked; {type(adapter).__name__} has none to send. Use LoraC, Lorae or "
                "ConvLora, or another strategy (MergedFedAvg)."
            )
        return MergedFedAvg("stack", aggregator=self.aggregator, server_optimizer=self.server_optimizer).refuses(
            adapter
        )

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """The server's step by the mean delta, as a stack."""
        mean = self.aggregator.aggregate(deltas, server.noise)
        steps, moments = self.server_optimizer.step(mean, server.sums)
        return Proposal(compress(steps, server.spec, "stack"), exact=steps, sums=moments)
