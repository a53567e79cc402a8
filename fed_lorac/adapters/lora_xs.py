"""lora-xs: a core of r x r numbers between two frozen bases on every convolution but the first. Knows networks; no
cameras, rounds or frames.

LoRA-XS, arXiv 2405.17604, on LoRA-C's view of a convolution, out*K rows and in*K columns: delta W = reshape(U S V),
U (out*K, r) and V (r, in*K) frozen, S (r, r) trained from zero. U and V are orthonormal and span the leading singular
vectors of the starting base's weight, which both ends have: nothing of them is sent. Or those of the mean of cameras'
first gradients, which a server finds and sends once (Fed-SB, arXiv 2502.15436). As they are the same for all cameras,
the mean of cores is the core of the mean.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import view_of
from fed_lorac.adapters.bases import Bases, singular_bases
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import torch_stream

__all__ = ["CoreConv2d", "LoraXs"]


class CoreConv2d(AdaptedConv2d):
    """A convolution that gains gain * U S V: S (u, u) trained, U (out*K, u) and V (u, in*K) frozen."""

    gain: float

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """gain * U S V, (..., out*K, in*K)."""
        return self._left(own) @ own["V"]

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The pair (V, gain * U S)."""
        return {"A": own["V"], "B": self._left(own)}

    def _left(self, own: Mapping[str, Tensor]) -> Tensor:
        return own["U"] @ (self.gain * own["S"])


@dataclass(frozen=True, kw_only=True)
class LoraXs(ConvAdapter):
    """A convolution's update as U S V, of which the core S (r, r) alone is trained. State: "<conv>.S".

    A view of fewer than r rows or columns has a core of that many. `lr_scale` is how much faster than `local.lr` a
    core learns: S counts sqrt(lr_scale) times, so its step in the weight is lr_scale times what it would be.
    """

    formula = "Σ r² + ends"
    source = "LoRA-XS, arXiv 2405.17604; federated: Fed-SB, arXiv 2502.15436"
    found_lr = 0.1
    layer = CoreConv2d
    linear = True

    rank: int = setting(2, "the rank setting r", least=1)
    bases: str = setting(
        "weight",
        "what a core stands between: leading singular vectors of the weight, or of the mean of the cameras' gradients "
        "in a first round, which are sent; or drawn matrices",
        choices=("weight", "gradient", "drawn"),
    )
    lr_scale: float = setting(1.0, "the cores' learning rate: so many times local.lr", above=0)
    known: Mapping[str, Bases] | None = field(default=None, compare=False, repr=False)  # by convolution, once fitted

    @property
    def finds_bases(self) -> bool:
        """Under "gradient"."""
        return self.bases == "gradient"

    @property
    def suggested_lr(self) -> float:
        """As `Adapter`'s: of `local.lr` times `lr_scale`."""
        return self.found_lr / self.lr_scale

    def fit_to(self, base: nn.Module) -> Self:
        """With the bases of a base's convolutions: its weights', until those of gradients are known."""
        if self.known is not None:
            return super().fit_to(base)
        names = self.convolutions(base) if self.bases != "drawn" else ()
        known = {n: self._singular(n, base.get_parameter(f"{n}.weight")) for n in names}
        return super(LoraXs, replace(self, known=known)).fit_to(base)

    def gradients_wanted(self, base: nn.Module) -> tuple[str, ...]:
        """The convolutions that carry cores, of a fitted adapter."""
        return tuple(name for name in self.places(base) if name in (self.known or {})) if self.finds_bases else ()

    def bases_of(self, gradients: Mapping[str, Tensor]) -> dict[str, Bases]:
        """What the leading singular vectors of these span, each of a convolution's weight."""
        return {name: self._singular(name, gradient) for name, gradient in gradients.items()}

    def with_bases(self, found: Mapping[str, Bases]) -> Self:
        """With these, by convolution."""
        return replace(self, known=dict(found)) if self.finds_bases else self

    def _singular(self, name: str, weight: Tensor) -> Bases:
        return singular_bases(weight, self.rank, torch_stream(0, "lora-xs", name))

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """The bases, and S = 0."""
        U, V = self._between(name, conv, generator)
        core = torch.zeros(U.shape[1], V.shape[0])
        return Branch({"S": core}, {"U": U, "V": V}, {"gain": math.sqrt(self.lr_scale)})

    def _between(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Bases:
        rows, cols = view_of(conv.weight.shape)
        if self.bases == "drawn":
            u = min(self.rank, rows, cols)
            U, V = (torch.randn(shape, generator=generator) for shape in ((rows, u), (u, cols)))
            return Bases(U / math.sqrt(rows), V / math.sqrt(cols))
        found = (self.known or {}).get(name)
        if found is None or (len(found.U), found.V.shape[1]) != (rows, cols):
            raise FactorError(
                f"A core stands between the singular vectors of the weight that it was fitted to; it knows none of "
                f"{name!r} with a view of {rows} x {cols}. Is it another model? Fit the adapter to a network of its "
                "kind."
            )
        return found

    def with_frozen_basis(self) -> Self:
        """With bases that are drawn: each attach draws others, and so each round of a rotating basis."""
        return replace(self, bases="drawn", known=None)
