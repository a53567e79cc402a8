"""FedAvg over merged deltas: `M = sum_k w_k * delta_k`, exact whatever A and B the cameras end with.

What goes down is another question. `dense`: M itself. `stack`: the cameras' factors side by side, M exactly, or dense
where that is smaller. `svd`: the nearest change of a set rank to M + E, and what that leaves out is kept on the server
as E for the next round, so nothing is lost, only late.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fed_lorac.adapters.deltas import changed_names, pair_of
from fed_lorac.aggregation.delta_sum import DeltaSum, State, compressed
from fed_lorac.errors import ConfigError
from fed_lorac.server.frame_strategy import FrameStrategy

__all__ = ["DOWNLINKS", "MergedFedAvg"]

_RESIDUAL = "residual/"  # before a tensor's name in what is kept
DOWNLINKS = ("svd", "stack", "dense")


class MergedFedAvg(FrameStrategy):
    """Exact averaging of merged low-rank deltas; usable in any ServerApp.

    Args:
        downlink: "svd", "stack" or "dense".
        svd_rank: rank rows that svd sends for each tensor; 0: as many as its factors had on the way up.
        residual: keep what svd leaves out and add it to the next round's mean.
        **common: see `FrameStrategy`.

    Raises:
        ConfigError: no such downlink or rank; or a stack of what acts on each entry of dense deltas.
    """

    source = "FedAvg, arXiv 1602.05629, of merged low-rank deltas"
    exact = True

    def __init__(self, *, downlink: str = "svd", svd_rank: int = 0, residual: bool = True, **common: Any) -> None:
        super().__init__(**common)
        if downlink not in DOWNLINKS or svd_rank < 0:
            raise ConfigError(
                f"A downlink is one of {', '.join(DOWNLINKS)} and its rank 0 (as on the way up) or more; "
                f"got {downlink!r} and {svd_rank}."
            )
        if downlink == "stack" and (self.server.elementwise or self.aggregator.elementwise):
            raise ConfigError(
                "No stack of factors is left of what acts on each entry of dense deltas; it came with a server that "
                f"steps by {self.server.name!r} from an aggregator {self.aggregator.name!r}. Send it dense or by svd."
            )
        self.downlink, self.keeps_residual = downlink, residual
        self._ranks = {name: _rank_down(self.changes, name, svd_rank) for name in changed_names(self.changes)}
        self._wanted: dict[str, DeltaSum] = {}

    @property
    def residual(self) -> dict[str, DeltaSum]:
        """What svd has left out so far, by tensor name."""
        return {key.removeprefix(_RESIDUAL): left for key, left in self.kept.items() if key.startswith(_RESIDUAL)}

    def combine(self, states: Iterable[tuple[State, float]]) -> tuple[State, dict[str, DeltaSum]]:
        """The server's step by the mean delta, with the residual added and compressed for the way down."""
        steps = self.stepped(states)
        self._wanted = {name: DeltaSum(total.shape).add(total) for name, total in steps.items()}
        for name, left in self.residual.items():
            self._wanted[name].add(left)
        update: State = {}
        for name, total in self._wanted.items():
            update |= compressed(total, name, self.downlink, self._ranks[name])
        return update, steps

    def settle(self, sent: dict[str, DeltaSum]) -> dict[str, DeltaSum]:
        """`E <- M + E - D`, with D as the cameras decode it."""
        super().settle(sent)
        if self.downlink == "svd" and self.keeps_residual:
            self.kept |= {_RESIDUAL + name: total.add(sent[name], -1.0) for name, total in self._wanted.items()}
        self._wanted = {}
        return sent


def _rank_down(template: Mapping[str, Sequence[int]], name: str, svd_rank: int) -> int:
    """Rank rows that svd sends for a tensor; 0, which is dense, for what came dense or kernel-wise with none set."""
    if (pair := pair_of(template, name)) is None:
        return 0
    shape_of_a, _ = pair
    return svd_rank or (shape_of_a[0] if len(shape_of_a) == 2 else 0)
