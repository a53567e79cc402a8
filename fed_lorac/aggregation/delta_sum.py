"""What a server computes: weighted sums of merged deltas and their compression. Knows tensors; not Flower or frames.

A round's mean is `M = sum_k w_k * delta_k`. A delta arrives as a factor pair, which the sum keeps stacked while the
stack is thinner than the dense matrix, or as a dense change. Averaging the products is exact; averaging A and B apart
is not. Sums are kept in float64 where they are dense: in float32, ten thousand terms would be off by more than 1e-6.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.adapters.algebra.factors import delta, stack, truncate, truncate_dense, view_of
from fed_lorac.adapters.deltas import changed_names, pair_of

__all__ = ["DeltaSum", "State", "Sums", "add_state", "compressed", "relative_distance", "sum_states"]

State = dict[str, Tensor]
"""`<name>.A` and `<name>.B` change `<name>.weight` by their product; any other key is a dense change of that tensor."""

Sums = dict[str, "DeltaSum"]
"""Sums of changes by tensor name."""


class DeltaSum:
    """A weighted sum of changes of ONE tensor: a stack of factors, a dense tensor, or one of each.

    A stack that is no thinner than the dense matrix, with rows >= min(out*K, in*K), is multiplied out in one product;
    no camera's own delta is built for layer-wise factors. Tensors that are added are never written to.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self._view: tuple[int, int] | None = None  # of the pairs that came
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._dense: Tensor | None = None
        self.rows = 0
        """Rank rows in the stack."""

    def add_pair(self, A: Tensor, B: Tensor, weight: float) -> Self:
        """Add `weight * B @ A`, by layer-wise or kernel-wise factors."""
        if A.ndim != 2:  # the kernel-wise ablation has no stack
            return self.add_dense(delta(A, B, self.shape, 1.0), weight)
        self._view = (B.shape[0], A.shape[1])
        self._pairs.append((A, weight * B))
        self.rows += A.shape[0]
        if self.rows >= min(self._view):
            self._dense, self._pairs, self.rows = self._multiplied_out(), [], 0
        return self

    def add_dense(self, change: Tensor, weight: float) -> Self:
        """Add `weight * change`."""
        if self._dense is None:
            self._dense = torch.zeros(self.shape, dtype=torch.float64)
        self._dense.add_(change, alpha=weight)
        return self

    def scaled(self, factor: float) -> Self:
        """The sum times `factor`, in place."""
        if self._dense is not None:
            self._dense.mul_(factor)
        if self._pairs:  # side by side from now on: one pair is faster to add, and to keep in a checkpoint
            A, B = self._stacked()
            self._pairs = [(A, factor * B)]
        return self

    def add(self, other: "DeltaSum", weight: float = 1.0) -> Self:
        """Add `weight` times another sum over the same tensor."""
        self._view = self._view or other._view
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
        return self._multiplied_out().to(torch.float32, copy=True)

    def dense64(self) -> Tensor:
        """The sum as a float64 tensor of the full shape, in memory of its own."""
        return self._multiplied_out().clone()

    def truncated(self, rank: int) -> tuple[Tensor, Tensor]:
        """The nearest pair of at most `rank` rows: from the stack where there is no more, else from the dense view."""
        pair = self.factors()
        if pair is not None:
            return truncate(*pair, rank)
        return truncate_dense(self.dense().reshape(self._view or view_of(self.shape)), rank)

    def norm(self) -> float:
        """The Frobenius norm, in float64; ||B A|| = ||R_B R_A'|| by QR of both where the sum is a thin stack."""
        pair = self.factors()
        if pair is None or self.rows * (pair[0].shape[1] + pair[1].shape[0]) > math.prod(self.shape):
            return float(torch.linalg.vector_norm(self._multiplied_out()))
        right, left = (torch.linalg.qr(side.double(), mode="r").R for side in (pair[0].T, pair[1]))
        return float(torch.linalg.vector_norm(left @ right.T))

    def parts(self) -> dict[str, Tensor]:
        """The sum as it stands, for a checkpoint: its "shape", "dense" (in its pairs' view), "A<i>" and "B<i>" of the
        stack."""
        found = {"shape": torch.tensor(self.shape)}
        if self._dense is not None:
            found["dense"] = self._dense.reshape(self._view or self.shape)
        for i, (A, B) in enumerate(self._pairs):
            found |= {f"A{i}": A, f"B{i}": B}
        return found

    @classmethod
    def of_parts(cls, parts: Mapping[str, Tensor]) -> Self:
        """The sum whose `parts` these are: what is added to it from here on gives the same bytes."""
        total = cls(parts["shape"].tolist())
        if (dense := parts.get("dense")) is not None:
            total._dense = dense.reshape(total.shape)
            total._view = (dense.shape[0], dense.shape[1]) if dense.shape != total.shape else None
        total.rows = sum(part.shape[0] for key, part in parts.items() if key.startswith("A"))
        total._pairs = [(parts[f"A{i}"], parts[f"B{i}"]) for i in range(sum(key.startswith("A") for key in parts))]
        if total._pairs:
            A, B = total._pairs[0]
            total._view = (B.shape[0], A.shape[1])
        return total

    def _multiplied_out(self) -> Tensor:
        """All of the sum, dense, in float64; the very tensor that is kept where there is no stack."""
        total = torch.zeros(self.shape, dtype=torch.float64) if self._dense is None else self._dense
        return total + delta(*self._stacked(), self.shape, 1.0) if self._pairs else total

    def _stacked(self) -> tuple[Tensor, Tensor]:
        return stack(self._pairs, [1.0] * len(self._pairs))


def sum_states(
    states: Iterable[tuple[Mapping[str, Tensor], float]],
    shapes: Mapping[str, Sequence[int]],
    scale: float,
) -> dict[str, DeltaSum]:
    """`sum_k w_k * delta_k` by weight name, over (state, w_k); `scale` (alpha / r) multiplies factor pairs only.

    States are consumed one after another in the order given, so the sum is a fixed function of that order.
    """
    sums: dict[str, DeltaSum] = {}
    for state, weight in states:
        add_state(sums, state, weight, shapes, scale)
        del state  # else it would live on while the next one is decoded
    return sums


def add_state(
    sums: dict[str, DeltaSum],
    state: Mapping[str, Tensor],
    weight: float,
    shapes: Mapping[str, Sequence[int]],
    scale: float,
) -> None:
    """Add `weight` times what a state says to `sums`, IN PLACE; `scale` multiplies factor pairs only."""
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


def relative_distance(sent: Mapping[str, DeltaSum], exact: Mapping[str, DeltaSum]) -> float:
    """||sent - exact|| / ||exact|| (Frobenius, over all tensors together); 0 where both are zero.

    Both must be over the same tensors.
    """
    off = math.hypot(*(DeltaSum(total.shape).add(total).add(sent[name], -1.0).norm() for name, total in exact.items()))
    size = math.hypot(*(total.norm() for total in exact.values()))
    return 0.0 if off == 0 else off / size if size else math.inf
