"""lora-xs: a core of r x r numbers between two frozen bases on every convolution but the first. Knows networks; no
cameras, rounds or frames.

LoRA-XS, arXiv 2405.17604, on LoRA-C's view of a convolution, out*K rows and in*K columns: delta W = reshape(U S V),
U (out*K, r) and V (r, in*K) frozen, S (r, r) trained from zero. U and V are orthonormal and span the leading singular
vectors of the starting base's weight, which both ends have: nothing of them is sent. As they are the same for all
cameras, the mean of cores is the core of the mean (Fed-SB, arXiv 2502.15436).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import to_view, view_of
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import torch_stream

__all__ = ["Bases", "CoreConv2d", "LoraXs", "singular_bases"]

_TURNS = 10  # of the subspace iteration, as in the authors' release
_APART = 1e-7  # of a basis, drawn: what decides where the weight's rank is lower than a core's


class Bases(NamedTuple):
    """Orthonormal columns U and orthonormal rows V."""

    U: Float[Tensor, "out_k u"]
    V: Float[Tensor, "u in_k"]


def singular_bases(weight: Tensor, rank: int, generator: torch.Generator) -> Bases:
    """What the leading `rank` singular vectors of a weight's view span, or all where there are fewer; float32, CPU.

    By subspace iteration from a drawn start (Halko, Martinsson, Tropp, arXiv 0909.4061, algorithm 4.4), in float64. An
    SVD has no vectors of its own where singular values tie, and each LAPACK chooses others; this is a smooth function
    of the weight, so that machines agree to float32 rounding.
    """
    view = to_view(weight.detach()).to("cpu", torch.float64)
    u = min(rank, *view.shape)
    start, left, right = (_drawn(n, u, generator) for n in (view.shape[1], view.shape[0], view.shape[1]))
    U = _orthonormal(view @ start, left)
    for _ in range(_TURNS):
        U = _orthonormal(view @ _orthonormal(view.T @ U, right), left)
    return Bases(U.float(), _orthonormal(view.T @ U, right).T.contiguous().float())


def _drawn(rows: int, cols: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, cols, dtype=torch.float64, generator=generator)


def _orthonormal(columns: Tensor, apart: Tensor) -> Tensor:
    """Orthonormal columns of the same span, each on the side of the one that it was made of."""
    Q, R = torch.linalg.qr(columns / (float(columns.norm()) or 1.0) + _APART * apart)
    sided: Tensor = Q * torch.where(R.diagonal() < 0, -1.0, 1.0)
    return sided


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
        "what a core stands between: the weight's leading singular vectors, or drawn matrices",
        choices=("weight", "drawn"),
    )
    lr_scale: float = setting(1.0, "the cores' learning rate: so many times local.lr", above=0)
    known: Mapping[str, Bases] | None = field(default=None, compare=False, repr=False)  # by convolution, once fitted

    @property
    def suggested_lr(self) -> float:
        """As `Adapter`'s: of `local.lr` times `lr_scale`."""
        return self.found_lr / self.lr_scale

    def fit_to(self, base: nn.Module) -> Self:
        """With the bases of a base's convolutions."""
        if self.known is not None:
            return self
        names = self.convolutions(base) if self.bases == "weight" else ()
        known = {n: self._singular(n, base.get_parameter(f"{n}.weight")) for n in names}
        return super(LoraXs, replace(self, known=known)).fit_to(base)

    def _singular(self, name: str, weight: Tensor) -> Bases:
        return singular_bases(weight, self.rank, torch_stream(0, "lora-xs", name))

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """The bases, and S = 0."""
        U, V = self._bases(name, conv, generator)
        core = torch.zeros(U.shape[1], V.shape[0])
        return Branch({"S": core}, {"U": U, "V": V}, {"gain": math.sqrt(self.lr_scale)})

    def _bases(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Bases:
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
