"""FedAvg over merged deltas: `M = sum_k w_k delta_k`, exact whatever A and B the cameras end with.

What goes down is another question. `dense`: M itself. `stack`: the cameras' factors side by side, M exactly, or dense
where that is smaller. `svd`: the nearest delta of a set rank to M + E, and what that leaves out is kept on the server
as E for the next round, so nothing is lost, only late.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import pair_of
from fed_lorac.aggregation.aggregators import Aggregator, ClientDelta, Mean
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, compressed
from fed_lorac.aggregation.server_optimizers import ServerOptimizer, Sgd
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting
from fed_lorac.server.strategy import FrameSpec, Proposal, ServerState, Strategy

__all__ = ["DOWNLINKS", "MergedFedAvg", "check_svd_rank", "compress", "refuses_full"]

DOWNLINKS = ("svd", "stack", "dense")
_RESIDUAL = "residual"


@dataclass(frozen=True)
class MergedFedAvg(Strategy):
    """Exact averaging of merged low-rank deltas.

    `aggregator` and `server_optimizer`: what stands for the mean, and how the server steps by it. Without
    `keep_residual` what svd leaves out is lost.
    """

    source = "FedAvg, arXiv 1602.05629, of merged low-rank deltas"
    exact = True
    draws_anew = True

    downlink: str = setting("svd", "how the mean delta goes down", choices=DOWNLINKS)
    svd_rank: int = setting(0, "rank of what svd sends for each tensor; 0: as many rows as its factors had", least=0)
    aggregator: Aggregator = field(default_factory=Mean)
    server_optimizer: ServerOptimizer = field(default_factory=Sgd)
    keep_residual: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_svd_rank(self, self.downlink, self.svd_rank)

    @property
    def least_replies(self) -> int:
        """The aggregator's."""
        return self.aggregator.least_cameras

    def refuses(self, adapter: Adapter) -> str | None:
        """Full fine-tuning; and a stack of what leaves no factors."""
        elementwise = [part for part in (self.server_optimizer, self.aggregator) if part.elementwise]
        if self.downlink == "stack" and elementwise:
            return (
                f"{type(elementwise[0]).__name__} acts on each entry of dense deltas, and no stack of factors is left "
                "of those; it came with a downlink that is a stack. Use the downlink dense or svd (MergedFedAvg), or "
                "Sgd or Momentum of the Mean."
            )
        return refuses_full(adapter)

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """D = the server's step by the mean delta; D + E compressed goes down."""
        mean = self.aggregator.aggregate(deltas, server.noise)
        steps, moments = self.server_optimizer.step(mean, server.sums)
        wanted = {name: DeltaSum(step.shape).add(step) for name, step in steps.items()}
        for name, left in server.sums.get(_RESIDUAL, {}).items():
            wanted[name].add(left)
        update = compress(wanted, server.spec, self.downlink, self.svd_rank)
        return Proposal(update, exact=steps, sums={**moments, _RESIDUAL: wanted})

    def commit(self, server: ServerState, proposal: Proposal, decoded: Sums) -> ServerState:
        """`E <- D + E - what went down`, as the cameras decode it."""
        sums = dict(proposal.sums)
        wanted = sums.pop(_RESIDUAL)
        if self.downlink == "svd" and self.keep_residual:
            sums[_RESIDUAL] = {
                name: DeltaSum(total.shape).add(total).add(decoded[name], -1.0) for name, total in wanted.items()
            }
        return server.with_(sums)


def check_svd_rank(strategy: Strategy, downlink: str, svd_rank: int) -> None:
    """ConfigError for a rank where nothing is cut to it."""
    if svd_rank and downlink != "svd":
        raise ConfigError(
            f"svd_rank is of what svd sends; {type(strategy).__name__} came with svd_rank = {svd_rank} and downlink = "
            f'"{downlink}". Remove it, or set downlink = "svd".'
        )


def refuses_full(adapter: Adapter) -> str | None:
    """Merged deltas are for adapters; full fine-tuning has a strategy of its own."""
    if not adapter.trains_everything:
        return None
    return (
        f"Deltas are merged where they are small changes of a base; {type(adapter).__name__} trains every parameter, "
        "and its states are averaged as they are. Use FedAvg, or another adapter."
    )


def compress(deltas: Sums, spec: FrameSpec, downlink: str, svd_rank: int = 0) -> State:
    """What goes down for these deltas; a tensor whose factors came up has at most `svd_rank` rows under svd, or as many
    as came up (0)."""
    update: State = {}
    for name, total in deltas.items():
        update |= compressed(total, name, downlink, _rank_down(spec, name, svd_rank))
    return update


def _rank_down(spec: FrameSpec, name: str, svd_rank: int) -> int:
    """Rank rows that svd sends for a tensor; 0, which is dense, for what came dense, or kernel-wise with none set."""
    if (pair := pair_of(spec.deltas, name)) is None:
        return 0
    shape_of_a, _ = pair
    return svd_rank or (shape_of_a[0] if len(shape_of_a) == 2 else 0)
