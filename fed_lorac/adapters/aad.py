"""Additive decomposition: two frozen bases, and what is trained stands linearly between them. Knows networks and
states; not cameras or rounds.

FedMUD's aggregation-aware decomposition (arXiv 2505.23176) on LoRA-C's view of a convolution, out*K rows and in*K
columns: delta W = (alpha / r) * reshape(L0 @ R + L @ R0), L0 (out*K, R) and R0 (R, in*K) frozen, L and R trained. No
product of two trained tensors is left, so the mean of states is the mean of changes; their rank is up to 2 R.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import ToDelta
from fed_lorac.adapters.algebra.factors import init_factors
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, BranchStart, ConvAdapter
from fed_lorac.adapters.deltas import State
from fed_lorac.adapters.targets import auto_rank_mode
from fed_lorac.errors import FactorError

__all__ = ["AadConv2d", "AdditiveDecomposition"]


class AadConv2d(AdaptedConv2d):
    """A convolution with L (out*K, R) and R (R, in*K), trained, and L0 and R0 of the same shapes, frozen."""

    scale: float  # alpha / r

    def change(self, own: Mapping[str, Tensor]) -> Tensor:
        """scale * (L0 @ R + L @ R0), (..., out*K, in*K), as one product of 2 R columns by 2 R rows."""
        A, B = _pair(own["L"], own["R"], own["L0"], own["R0"], self.scale)
        return B @ A


@dataclass(frozen=True)
class AdditiveDecomposition(ConvAdapter):
    """FedMUD's decomposition on every convolution but the first; `rank_mode` is LoRA-C's, so L and R are as large as
    LoRA-C's B and A of the same rank."""

    linear = True
    kind = AadConv2d
    rank: int
    alpha: float
    rank_mode: str = "auto"

    def starts(self, model: nn.Module, generator: torch.Generator) -> dict[str, BranchStart]:
        """L and R zero, R0 and L0 drawn, convolution after convolution in the network's order."""
        mode = auto_rank_mode(model) if self.rank_mode == "auto" else self.rank_mode
        return {name: self._start(model, name, mode, generator) for name in self.convolutions(model)}

    def _start(self, model: nn.Module, name: str, mode: str, generator: torch.Generator) -> BranchStart:
        R0, L = init_factors(model.get_parameter(f"{name}.weight").shape, self.rank, mode, generator)
        # R0 is LoRA-C's A, uniform within 1 / sqrt(in*K), and L0 is drawn within the same bound. With G the gradient of
        # the (out*K, in*K) view, L's is G R0' and R's is L0' G: their squared norms, which is what a step along each
        # half lowers the loss by, are R |G|^2 times the variance of R0's or L0's entries. So equal variances make equal
        # halves, whatever the shape; a bound of L0's own, by out*K, would not where out differs from in.
        bound = 1 / math.sqrt(R0.shape[1])
        L0 = torch.empty(L.shape).uniform_(-bound, bound, generator=generator)
        return BranchStart(
            {"L": L, "R": torch.zeros(R0.shape)}, {"L0": L0, "R0": R0}, {"scale": self.alpha / self.rank}
        )

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """Every (L, R) becomes the pair (A, B) of 2 R rows, alpha / r in it; what is dense passes.

        FactorError where a state has one of the two, or other shapes than the base's.
        """
        frozen = {name: start.frozen for name, start in self.starts(base, generator).items()}
        return lambda state: _to_delta(state, frozen, self.alpha / self.rank)


def _to_delta(state: State, frozen: Mapping[str, Mapping[str, Tensor]], scale: float) -> dict[str, Tensor]:
    trained = {f"{name}.{own}" for name in frozen for own in "LR"}
    change = {key: tensor for key, tensor in state.items() if key not in trained}
    for name, drawn in frozen.items():
        L, R = (state.get(f"{name}.{own}") for own in "LR")
        if L is None or R is None or L.shape != drawn["L0"].shape or R.shape != drawn["R0"].shape:
            raise FactorError(
                f"{name!r} has L {tuple(drawn['L0'].shape)} and R {tuple(drawn['R0'].shape)} in this adapter; came "
                f"{None if L is None else tuple(L.shape)} and {None if R is None else tuple(R.shape)}. Was it trained "
                "with another rank or rank mode?"
            )
        change[f"{name}.A"], change[f"{name}.B"] = _pair(L, R, drawn["L0"].to(L), drawn["R0"].to(R), scale)
    return change


def _pair(L: Tensor, R: Tensor, L0: Tensor, R0: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """A (..., 2 R, in*K) and B (..., out*K, 2 R) with B @ A = scale * (L0 @ R + L @ R0)."""
    return torch.cat([R, R0], dim=-2), scale * torch.cat([L0, L], dim=-1)
