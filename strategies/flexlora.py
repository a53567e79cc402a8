"""Each camera its own rank: the mean of merged factors, and of that the nearest factors of the camera's rank (FlexLoRA,
Bai et al. 2024, arXiv 2402.11505, algorithm 1).

Factors live on from round to round: a camera trains on from those it was told, and sends them whole. The server keeps
the mean of the products; what a camera's rank leaves out of it stays behind. What is trained beside the factors goes to
all and is folded, as under every strategy.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import pair_of
from fed_lorac.aggregation.aggregators import ClientDelta, weighted_mean
from fed_lorac.aggregation.delta_sum import State, Sums
from fed_lorac.server.strategy import PersonalPart, Proposal, ServerState, Strategy

__all__ = ["FlexLora"]

_GLOBAL = "global"  # the mean of products


@dataclass(frozen=True)
class FlexLora(Strategy):
    """Averaging of merged factors, handed out by rank."""

    source = "FlexLoRA, arXiv 2402.11505"
    exact = False
    personal_kind = "adapter"

    def refuses(self, adapter: Adapter) -> str | None:
        """What has no factors, or has them per kernel."""
        if not adapter.has_factors:
            return (
                f"Factors A and B are what each camera gets its own rank of; {type(adapter).__name__} has none to "
                "send. Use LoraC, Lorae or ConvLora, or another strategy (MergedFedAvg)."
            )
        if getattr(adapter, "kernel_wise", False):
            return (
                f"A rank is taken of layer-wise factors; {type(adapter).__name__} came with kernel_wise = true. Set it "
                "to false, or merge the deltas (MergedFedAvg)."
            )
        return None

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """What is trained beside the factors goes to all; the mean of products is for each camera's rank."""
        mean = weighted_mean(deltas)
        products = {name: total for name, total in mean.items() if pair_of(server.spec.template, name)}
        update = {name: total.dense() for name, total in mean.items() if name not in products}
        return Proposal(update, exact=mean, sums={_GLOBAL: products})

    def not_in_updates(self, server: ServerState) -> Sums:
        """The mean of products."""
        return server.sums.get(_GLOBAL, {})

    def personal(self, server: ServerState, camera: int) -> PersonalPart | None:
        """The nearest factors of the camera's rank to the mean of products."""
        if _GLOBAL not in server.sums:
            return None
        return PersonalPart(("kind", server.spec.kind(camera)), server.round, lambda: self._truncated(server, camera))

    def _truncated(self, server: ServerState, camera: int) -> State:
        """B before the scale, from which its camera continues training."""
        state: State = {}
        for name, product in server.sums[_GLOBAL].items():
            stem = name.removesuffix(".weight")
            A, B = product.truncated(server.spec.template_for(camera)[f"{stem}.A"][0])
            state |= {f"{stem}.A": A, f"{stem}.B": B / server.spec.scale}
        return state
