"""What a server computes: weighted sums of merged deltas and their compression. Knows tensors; not Flower or frames.

A round's mean is `M = sum_k w_k * delta_k`. A delta arrives as a factor pair, which the sum keeps stacked while the
stack is thinner than the dense matrix, or as a dense change. Averaging the products is exact; averaging A and B apart
is not (`means_of_factors`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.adapters.changes import changed_names, pair_of
from fed_lorac.adapters.factors import delta, stack, to_view, truncate, truncate_dense, view_of

__all__ = ["DeltaSum", "State", "compressed", "means_of_factors", "relative_distance", "sum_states"]

State = dict[str, Tensor]
"""`<name>.A` and `<name>.B` change `<name>.weight` by their product; any other key is a dense change of that tensor."""


class DeltaSum:
    """A weighted sum of changes of ONE tensor: a stack of factors, a dense tensor, or one of each.

    A stack that is no thinner than the dense matrix, with rows >= min(out*K, in*K), is multiplied out in one product;
    no camera's own delta is built for layer-wise factors. Tensors that are added are never written to.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._dense: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rank rows in the stack."""
        return sum(A.shape[0] for A, _ in self._pairs)

    def add_pair(self, A: Tensor, B: Tensor, weight: float) -> Self:
        """Add `weight * B @ A`, by layer-wise or kernel-wise factors."""
        if A.ndim != 2:  # the kernel-wise ablation has no stack
            return self.add_dense(delta(A, B, self.shape, 1.0), weight)
        self._pairs.append((A, weight * B))
        if self.rows >= min(view_of(self.shape)):
            self._dense, self._pairs = self.dense(), []
        return self

    def add_dense(self, change: Tensor, weight: float) -> Self:
        """Add `weight * change`."""
        if self._dense is None:
            self._dense = torch.zeros(self.shape)
        self._dense.add_(change, alpha=weight)
        return self

    def add(self, other: "DeltaSum", weight: float = 1.0) -> Self:
        """Add `weight` times another sum over the same tensor."""
        if other._dense is not None:
            self.add_dense(other._dense, weight)
        for A, B in other._pairs:
            self.add_pair(A, B, weight)
        return self

    def factors(self) -> tuple[Float[Tensor, "s in_k"], Float[Tensor, "out_k s"]] | None:
        """The sum as one stacked pair, or None where some of it is dense."""
        return None if self._dense is not None or not self._pairs else self._stacked()

    def dense(self) -> Tensor:
        """The sum as a float32 tensor of the full shape, in memory of its own."""
        total = torch.zeros(self.shape) if self._dense is None else self._dense.clone()
        return total.add_(delta(*self._stacked(), self.shape, 1.0)) if self._pairs else total

    def truncated(self, rank: int) -> tuple[Tensor, Tensor]:
        """The nearest pair of at most `rank` rows: from the stack where there is no more, else from the dense view."""
        pair = self.factors()
        return truncate_dense(to_view(self.dense()), rank) if pair is None else truncate(*pair, rank)

    def norm(self) -> float:
        """The Frobenius norm, in float64; ||B A|| = ||R_B R_A'|| by QR of both where the sum is a stack."""
        if (pair := self.factors()) is None:
            return float(torch.linalg.vector_norm(self.dense(), dtype=torch.float64))
        right, left = (torch.linalg.qr(side.double(), mode="r").R for side in (pair[0].T, pair[1]))
        return float(torch.linalg.vector_norm(left @ right.T))

    def _stacked(self) -> tuple[Tensor, Tensor]:
        return stack(self._pairs, [1.0] * len(self._pairs))


def sum_states(
    states: Iterable[tuple[Mapping[str, Tensor], float]],
    shapes: Mapping[str, Sequence[int]],
    scale: float,
) -> dict[str, DeltaSum]:
    """`sum_k w_k * delta_k` by weight name, over (state, w_k); `scale` (alpha / r) multiplies factor pairs only.

    States are consumed one after another in the order given, so the sum is a fixed function of that order; what
    `states` makes one by one (a generator) is let go before the next is asked for, save for stacked factors.
    """
    sums: dict[str, DeltaSum] = {}
    for state, weight in states:
        _add_state(sums, state, weight, shapes, scale)
        del state  # else it would live on while the next one is decoded
    return sums


def _add_state(
    sums: dict[str, DeltaSum],
    state: Mapping[str, Tensor],
    weight: float,
    shapes: Mapping[str, Sequence[int]],
    scale: float,
) -> None:
    for name in changed_names(state):
        total = sums.setdefault(name, DeltaSum(shapes[name]))
        if (pair := pair_of(state, name)) is not None:
            total.add_pair(*pair, weight * scale)
        else:
            total.add_dense(state[name], weight)


def compressed(total: DeltaSum, name: str, downlink: str, rank: int) -> State:
    """What goes down for one tensor: a pair of at most `rank` rows (svd), the stack, or the dense change.

    Whatever was asked for, the dense change goes down where it is smaller; so it does under svd with rank 0.
    """
    pair = None
    if downlink == "stack":
        pair = total.factors()
    elif downlink == "svd" and rank:
        pair = total.truncated(rank)
    if pair is None or pair[0].numel() + pair[1].numel() >= math.prod(total.shape):
        return {name: total.dense()}
    stem = name.removesuffix(".weight")
    return {f"{stem}.A": pair[0], f"{stem}.B": pair[1]}


def means_of_factors(states: Iterable[tuple[Mapping[str, Tensor], float]]) -> State:
    """`sum_k w_k * t_k` for every tensor apart, A and B too: the naive average that FLoCoRA and others use."""
    mean: State = {}
    for state, weight in states:
        for key, value in state.items():
            mean.setdefault(key, torch.zeros_like(value)).add_(value, alpha=weight)
    return mean


def relative_distance(sent: Mapping[str, DeltaSum], exact: Mapping[str, DeltaSum]) -> float:
    """||sent - exact|| / ||exact|| (Frobenius, over all tensors together); 0 where both are zero.

    Both must be over the same tensors.
    """
    off = math.hypot(*(DeltaSum(total.shape).add(total).add(sent[name], -1.0).norm() for name, total in exact.items()))
    size = math.hypot(*(total.norm() for total in exact.values()))
    return 0.0 if off == 0 else off / size if size else math.inf
