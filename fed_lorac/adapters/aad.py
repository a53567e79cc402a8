"""aad: two frozen bases, and what is trained stands linearly between them. Knows networks and states; not cameras or
rounds.

FedMUD's aggregation-aware decomposition (arXiv 2505.23176) on LoRA-C's view of a convolution, out*K rows and in*K
columns: delta W = (alpha / r) * reshape(L0 @ R + L @ R0), L0 (out*K, R) and R0 (R, in*K) frozen, L and R trained. No
product of two trained tensors is left, so the mean of states is the mean of deltas; their rank is up to 2 R.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import init_factors
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.adapters.targets import auto_rank_mode
from fed_lorac.runtime.settings import setting

__all__ = ["AadConv2d", "AdditiveDecomposition"]


class AadConv2d(AdaptedConv2d):
    """A convolution with L (out*K, R) and R (R, in*K), trained, and L0 and R0 of the same shapes, frozen."""

    scale: float  # alpha / r

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """scale * (L0 @ R + L @ R0), (..., out*K, in*K), as one product of 2 R columns by 2 R rows."""
        A, B = self._pair(own)
        return B @ A

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One pair of 2 R rows, alpha / r in it."""
        A, B = self._pair(own)
        return {"A": A, "B": B}

    def _pair(self, own: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """A (..., 2 R, in*K) and B (..., out*K, 2 R) with B @ A = scale * (L0 @ R + L @ R0)."""
        return torch.cat([own["R"], own["R0"]], dim=-2), self.scale * torch.cat([own["L0"], own["L"]], dim=-1)


@dataclass(frozen=True)
class AdditiveDecomposition(ConvAdapter):
    """A convolution's update as L0 R + L R0, of which L and R are trained; L0 and R0 are frozen.

    The first convolution has none. `rank_mode` is LoRA-C's, so L and R are as large as LoRA-C's B and A of the same
    rank.
    """

    formula = "Σ R (in K + out K) + ends"
    source = "FedMUD's additive decomposition, arXiv 2505.23176"
    found_lr = 0.1
    layer = AadConv2d
    linear = True

    rank: int = setting(2, "the rank setting r", least=1)
    alpha: float = setting(4.0, "the scale's numerator: delta = alpha / r * (L0 R + L R0)", above=0)
    rank_mode: str = setting(
        "auto",
        "inner rank of the factors: rank times kernel size, or rank; auto: as lora-c",
        choices=("auto", "r*k", "r"),
    )

    def fit_to(self, base: nn.Module) -> Self:
        """With the rank mode that "auto" means for this network."""
        own = replace(self, rank_mode=auto_rank_mode(base)) if self.rank_mode == "auto" else self
        return super(AdditiveDecomposition, own).fit_to(base)

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """L and R zero, R0 and L0 drawn."""
        R0, L = init_factors(conv.weight.shape, self.rank, self.rank_mode, generator)
        # R0 is LoRA-C's A, uniform within 1 / sqrt(in*K), and L0 is drawn within the same bound. With G the gradient of
        # the (out*K, in*K) view, L's is G R0' and R's is L0' G: their squared norms, which is what a step along each
        # half lowers the loss by, are R |G|^2 times the variance of R0's or L0's entries. So equal variances make equal
        # halves, whatever the shape; a bound of L0's own, by out*K, would not where out differs from in.
        bound = 1 / math.sqrt(R0.shape[1])
        L0 = torch.empty(L.shape).uniform_(-bound, bound, generator=generator)
        return Branch({"L": L, "R": torch.zeros(R0.shape)}, {"L0": L0, "R0": R0}, {"scale": self.alpha / self.rank})

    def with_frozen_basis(self) -> Self:
        """It is one."""
        return self
