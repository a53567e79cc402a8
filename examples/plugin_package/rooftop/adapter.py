"""An adapter: each filter gets a few trained gains, each on a pattern of its input channels that both ends draw."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.runtime.settings import setting

__all__ = ["Patterns"]


class PatternConv2d(AdaptedConv2d):
    """A convolution with `gains` (out, n), trained, and `patterns` (n, in, K, K), frozen."""

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """sum_i gains[:, i] * patterns[i], (..., out, in * K * K): cameras may stand in front."""
        return own["gains"] @ own["patterns"].flatten(-3)


@dataclass(frozen=True)
class Patterns(ConvAdapter):
    """delta W[o] = sum_i gains[o, i] * patterns[i]: linear in the gains, the only numbers that are sent."""

    source = "an example of fed-lorac: random patterns, frozen"
    linear = True
    layer = PatternConv2d
    count: int = setting(4, "patterns of each convolution", least=1)

    @property
    def formula(self) -> str:
        """How many numbers a camera sends."""
        return "Σ count · out + ends"

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """Gains of zero, so that a fresh adapter changes nothing; patterns as large as a layer's fresh weights."""
        bound = 1 / conv.weight[0].numel() ** 0.5
        patterns = torch.empty(self.count, *conv.weight.shape[1:]).uniform_(-bound, bound, generator=generator)
        return Branch({"gains": torch.zeros(conv.out_channels, self.count)}, {"patterns": patterns})
