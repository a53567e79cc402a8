"""conv-lora: LoRA on convolutions, as PEFT and FLoCoRA have it. Knows networks; no cameras, rounds or frames.

Hu et al. 2021, arXiv 2106.09685; on convolutions arXiv 2406.14082: delta W = (alpha / r) * reshape(B @ A), with
A (r, in*K*K), which is r filters, and B (out, r), a 1x1 mapper.
"""

from dataclasses import dataclass

from fed_lorac.adapters.low_rank import LowRankAdapter
from fed_lorac.runtime.settings import setting

__all__ = ["ConvLora"]


@dataclass(frozen=True)
class ConvLora(LowRankAdapter):
    """r filters and a 1x1 mapper on every convolution but the first, times alpha / r."""

    formula = "Σ r (in K² + out) + ends"
    source = "LoRA, arXiv 2106.09685, on convolutions as PEFT and FLoCoRA (arXiv 2406.14082) have it"

    alpha: float = setting(4.0, "the scale's numerator: delta = alpha / r * B A", above=0)

    @property
    def branch_scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank
