"""Frozen bases that a core stands between: what leading singular vectors span, and how bases that a server has found
are told to others. Knows matrices and states; not networks, cameras or frames."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.adapters.algebra.factors import to_view

__all__ = ["BASIS_KEYS", "Bases", "FoundBases", "singular_bases", "state_of"]

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


BASIS_KEYS = _U, _V = ".basis_U", ".basis_V"
"""What the names of a convolution's bases end with, in a state that tells of them."""


@dataclass(frozen=True)
class FoundBases:
    """Bases by convolution, as a state tells them; equal where `tag`, of all their numbers, is."""

    tag: str
    of: Mapping[str, Bases] = field(compare=False, repr=False)

    @classmethod
    def told(cls, state: Mapping[str, Tensor]) -> "FoundBases | None":
        """Those that a state tells of; None where it tells of none."""
        names = sorted(key.removesuffix(_U) for key in state if key.endswith(_U))
        if not names:
            return None
        found = {name: Bases(state[name + _U], state[name + _V]) for name in names}
        numbers = b"".join(basis.contiguous().numpy().tobytes() for pair in found.values() for basis in pair)
        return cls(hashlib.sha256(numbers).hexdigest(), found)

    def state(self) -> dict[str, Tensor]:
        """The inverse."""
        return state_of(self.of)


def state_of(bases: Mapping[str, Bases]) -> dict[str, Tensor]:
    """The state that tells of bases, by convolution: "<conv>.basis_U" and "<conv>.basis_V"."""
    return {name + key: basis for name, pair in bases.items() for key, basis in zip(BASIS_KEYS, pair, strict=True)}
