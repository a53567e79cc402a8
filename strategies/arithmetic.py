"""What a server computes: weighted sums of merged deltas and their compression. Knows tensors; not Flower or frames.

A round's mean is `M = sum_k w_k * delta_k`. A delta arrives as a factor pair, which the sum keeps stacked while the
stack is thinner than the dense matrix, or as a dense change. Averaging the products is exact; averaging A and B apart
is not (`means_of_factors`).
"""

from collections.abc import Iterable, Mapping
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.adapters.factors import delta_from_view, stack, to_view, truncate, truncate_dense, view_of
from fed_lorac.adapters.factors import delta as dense_delta
from fed_lorac.errors import FactorError

__all__ = ["DeltaSum", "State", "compressed", "means_of_factors", "relative_distance", "split", "sum_states"]

State = dict[str, Tensor]
"""`<name>.A` and `<name>.B` change `<name>.weight` by their product; any other key is a dense change of that tensor."""


class DeltaSum:
    """A weighted sum of changes of ONE tensor: a stack of factors while that is thinner, then dense.

    Memory is at most the tensor's own size and a half beside the stack; no camera's dense delta is built for
    layer-wise factors (a stack is multiplied out as one product).
    """

    def __init__(self, shape: Iterable[int]) -> None:
        self.shape = tuple(shape)
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._dense: Tensor | None = None

    @property
    def rows(self) -> int:
        """Rank rows in the stack that is not yet multiplied out."""
        return sum(A.shape[0] for A, _ in self._pairs)

    def add_pair(self, A: Tensor, B: Tensor, weight: float) -> Self:
        """Add `weight * B @ A`."""
        if A.ndim != 2:  # the kernel-wise ablation has no stack
            return self.add_dense(dense_delta(A, B, self.shape, 1.0), weight)
        self._pairs.append((A, weight * B))
        if self._dense is not None or self.rows >= min(view_of(self.shape)):
            self._multiply_out()
        return self

    def add_dense(self, change: Tensor, weight: float) -> Self:
        """Add `weight * change`."""
        if self._dense is None:
            self._dense = torch.zeros(self.shape)
            self._multiply_out()
        self._dense.add_(change, alpha=weight)
        return self

    def add(self, other: "DeltaSum", weight: float = 1.0) -> Self:
        """Add `weight` times another sum over the same tensor."""
        if other._dense is not None:
            self.add_dense(other._dense, weight)
        for A, B in other._pairs:
            self.add_pair(A, B, weight)
        return self

    def dense(self) -> Tensor:
        """The sum as a float32 tensor of the full shape."""
        total = torch.zeros(self.shape) if self._dense is None else self._dense.clone()
        if self._pairs:
            A, B = stack(self._pairs, [1.0] * len(self._pairs))
            total += delta_from_view(B @ A, self.shape)
        return total

    def factors(self) -> tuple[Float[Tensor, "s in_k"], Float[Tensor, "out_k s"]] | None:
        """The sum as one stacked pair, or None where it is dense."""
        return None if self._dense is not None or not self._pairs else stack(self._pairs, [1.0] * len(self._pairs))

    def truncated(self, rank: int) -> tuple[Tensor, Tensor]:
        """The nearest pair of at most `rank` rows: from the stack where there is one, else from the dense view."""
        pair = self.factors()
        return truncate_dense(to_view(self.dense()), rank) if pair is None else truncate(*pair, rank)

    def _multiply_out(self) -> None:
        self._dense, self._pairs = self.dense(), []


def split(state: Mapping[str, Tensor]) -> tuple[dict[str, tuple[Tensor, Tensor]], State]:
    """The factor pairs by the name of the weight they change, and the dense changes by theirs."""
    pairs, dense = {}, {}
    for key, value in state.items():
        if key.endswith(".A"):
            stem = key.removesuffix(".A")
            if f"{stem}.B" not in state:
                raise FactorError(f"Factors come in pairs; {key} came without {stem}.B. Was a tensor dropped?")
            pairs[f"{stem}.weight"] = (value, state[f"{stem}.B"])
        elif not key.endswith(".B"):
            dense[key] = value
        elif f"{key.removesuffix('.B')}.A" not in state:
            raise FactorError(f"Factors come in pairs; {key} came without its A. Was a tensor dropped?")
    return pairs, dense


def sum_states(
    states: Iterable[tuple[Mapping[str, Tensor], float]],
    shapes: Mapping[str, torch.Size],
    scale: float,
) -> dict[str, DeltaSum]:
    """`sum_k w_k * delta_k` by weight name, over (state, w_k); `scale` (alpha / r) multiplies factor pairs only.

    States are consumed one after another in the order given, so the sum is a fixed function of that order.
    """
    sums: dict[str, DeltaSum] = {}
    for state, weight in states:
        pairs, dense = split(state)
        for name, (A, B) in pairs.items():
            sums.setdefault(name, DeltaSum(shapes[name])).add_pair(A, B, weight * scale)
        for name, change in dense.items():
            sums.setdefault(name, DeltaSum(shapes[name])).add_dense(change, weight)
    return sums


def compressed(total: DeltaSum, name: str, downlink: str, rank: int) -> State:
    """What goes down for one tensor: a pair of at most `rank` rows (svd), the stack, or the dense change.

    "stack" sends the dense change where that is smaller, and svd does for tensors that have no low-rank view.
    """
    stem = name.removesuffix(".weight")
    if downlink == "svd" and rank and len(total.shape) == 4:
        A, B = total.truncated(rank)
        if A.numel() + B.numel() < total.dense().numel():
            return {f"{stem}.A": A, f"{stem}.B": B}
    pair = total.factors() if downlink == "stack" else None
    if pair is not None and pair[0].numel() + pair[1].numel() < total.dense().numel():
        return {f"{stem}.A": pair[0], f"{stem}.B": pair[1]}
    return {name: total.dense()}


def means_of_factors(states: Iterable[tuple[Mapping[str, Tensor], float]]) -> State:
    """`sum_k w_k * t_k` for every tensor apart, A and B too: the naive average that FLoCoRA and others use."""
    mean: State = {}
    for state, weight in states:
        for key, value in state.items():
            mean[key] = value * weight if key not in mean else mean[key].add(value, alpha=weight)
    return mean


def relative_distance(sent: Mapping[str, DeltaSum], exact: Mapping[str, DeltaSum]) -> float:
    """The Frobenius norm of sent - exact over that of exact, over all tensors; 0 where both are zero."""
    off = size = 0.0
    for name in {**sent, **exact}:
        a, b = ((s[name].dense().double() if name in s else torch.zeros(())) for s in (sent, exact))
        off, size = off + float((a - b).square().sum()), size + float(b.square().sum())
    return 0.0 if off == 0 else (off / size) ** 0.5 if size else float("inf")
