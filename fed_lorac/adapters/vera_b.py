"""vera-b: one number a row of every convolution but the first, which weighs a drawn row. Knows networks; no cameras,
rounds or frames.

VeRA (arXiv 2310.11454) of whose vectors b alone is trained, on LoRA-C's view of a convolution, out*K rows and in*K
columns: delta W = reshape(diag(b) B0 A0), B0 (out*K, m) and A0 (m, in*K) drawn and frozen, b (out*K) trained from zero.
Both ends draw B0 and A0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import view_of
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.runtime.settings import setting

__all__ = ["VeraB", "VeraConv2d"]


class VeraConv2d(AdaptedConv2d):
    """A convolution that gains gain * diag(b) B0 A0: b (out*K,) trained, B0 (out*K, m) and A0 (m, in*K) frozen."""

    gain: float

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """gain * diag(b) B0 A0, (..., out*K, in*K)."""
        return self._left(own) @ own["A0"]

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The pair (A0, gain * diag(b) B0)."""
        return {"A": own["A0"], "B": self._left(own)}

    def _left(self, own: Mapping[str, Tensor]) -> Tensor:
        return (self.gain * own["b"])[..., None] * own["B0"]


@dataclass(frozen=True, kw_only=True)
class VeraB(ConvAdapter):
    """A convolution's update as diag(b) B0 A0, of which b alone is trained. State: "<conv>.b".

    Rows of B0 A0 are of length 1 in the mean. `lr_scale` is how much faster than `local.lr` b learns: b counts
    sqrt(lr_scale) times, so its step in the weight is lr_scale times what it would be.
    """

    formula = "Σ out K + ends"
    source = "VeRA, arXiv 2310.11454, its b alone"
    found_lr = 0.3
    layer = VeraConv2d
    linear = True

    inner: int = setting(16, "rows m of A0: the rank of what is drawn; none of it is sent", least=1)
    lr_scale: float = setting(1.0, "the learning rate of b: so many times local.lr", above=0)

    @property
    def suggested_lr(self) -> float:
        """As `Adapter`'s: of `local.lr` times `lr_scale`."""
        return self.found_lr / self.lr_scale

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """B0 and A0 drawn, and b = 0."""
        rows, cols = view_of(conv.weight.shape)
        A0 = torch.randn(self.inner, cols, generator=generator) / math.sqrt(cols)
        B0 = torch.randn(rows, self.inner, generator=generator) / math.sqrt(self.inner)
        return Branch({"b": torch.zeros(rows)}, {"A0": A0, "B0": B0}, {"gain": math.sqrt(self.lr_scale)})

    def with_frozen_basis(self) -> Self:
        """It is one."""
        return self
