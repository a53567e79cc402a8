"""ffa-lora-c: LoRA-C whose A stays as it is drawn, the same for every camera; B alone is trained and sent. Knows
networks; no cameras, rounds or frames.

FFA-LoRA, Sun et al. 2024, arXiv 2403.12313: mean(B) @ A is the mean of the products.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.conv_adapter import Branch, ConvAdapter
from fed_lorac.adapters.deltas import ToDelta
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.low_rank import LoraConv2d

__all__ = ["FfaConv2d", "FfaLoraC"]


class FfaConv2d(LoraConv2d):
    """A convolution with A frozen and B trained."""

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The pair (A, scale * B)."""
        return {"A": own["A"], "B": self.scale * own["B"]}


@dataclass(frozen=True)
class FfaLoraC(LoraC):
    """LoRA-C's factors, of which A is frozen and B is trained. State: "<conv>.B"."""

    source = "FFA-LoRA, arXiv 2403.12313, on LoRA-C"
    found_lr = 0.0
    layer = FfaConv2d
    linear = True
    has_factors = False
    draws_anew = False
    state_is_delta = False

    @property
    def formula(self) -> str:
        """B alone."""
        return "Σ r K in out + ends" if self.kernel_wise else "Σ R out K + ends"

    @property
    def scale(self) -> float:
        """1: alpha / r is in `to_delta`."""
        return 1.0

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """A as LoRA-C draws it, frozen, and B zero."""
        start = super().branch(name, conv, generator)
        return Branch({"B": start.trained["B"]}, {"A": start.trained["A"]}, start.settings)

    def relative_to_init(self) -> Self:
        """B is zero at first: it is relative to that."""
        return self

    def with_frozen_basis(self) -> Self:
        """It is."""
        return self

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """Beside each B, times alpha / r, the A that `attach` drew; FactorError for a state of other layers or rank."""
        return ConvAdapter.to_delta(self, base, generator)
