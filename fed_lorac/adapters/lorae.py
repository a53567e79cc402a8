"""lorae: LoRAE, r filters and a 1x1 mapper on every convolution but the first, without a scale. Knows networks; no
cameras, rounds or frames.

"Low-rank adaptation for edge AI", doi 10.1038/s41598-025-16794-9: delta W = reshape(B @ A), A (r, in*K*K), B (out, r).
"""

from dataclasses import dataclass

from fed_lorac.adapters.low_rank import LowRankAdapter

__all__ = ["Lorae"]


@dataclass(frozen=True)
class Lorae(LowRankAdapter):
    """Conv LoRA's filters and mapper, with alpha = r."""

    formula = "Σ r (in K² + out) + ends"
    source = "LoRAE, Low-rank adaptation for edge AI, doi 10.1038/s41598-025-16794-9"
