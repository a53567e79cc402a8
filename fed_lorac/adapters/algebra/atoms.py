"""Filter atoms: a convolution's kernels as sums of a few small ones. Knows kernels, codes and products; no layers,
cameras or messages.

W (out, in, K, K) is decomposed as alpha x D, coefficients alpha (out, in, m) and atoms D (m, K, K), and changed by
alpha x delta D ("Large Convolutional Model Tuning via Filter Subspace", arXiv 2403.00269, section 3). A 1x1
convolution has no kernels to speak of: kc by kc of its channels are taken together as one, (out/kc, in/kc, kc, kc).
Kernels need not be square, (K_h, K_w); `in` is what the weight has, in_channels / groups.

Atoms are orthonormal as far as m <= K*K: the leading right singular vectors of the (out*in, K*K) matrix of kernels,
which leave the least error that m atoms can (Eckart and Young). Beyond K*K they are joined by drawn unit vectors, and
the code is sparse: orthogonal matching pursuit. All is reckoned in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.errors import FactorError

__all__ = [
    "Code",
    "decompose",
    "delta",
    "delta_by_channel",
    "from_kernels",
    "init_combination",
    "is_pointwise",
    "leading_atoms",
    "overall_error",
    "sparse_code",
    "to_kernels",
]

_CHUNK = 1 << 13  # kernels that are coded at once: more take longer, as they leave the cache
_NOTHING = 1e-10  # what is left of an atom of length 1 that its support spans already


@dataclass(frozen=True)
class Code:
    """Kernels (out, in, K_h, K_w), decomposed: on the CPU, in the kernels' dtype."""

    alpha: Float[Tensor, "out in m"]
    atoms: Float[Tensor, "m kh kw"]
    norm: float  # ||W||, Frobenius
    missed: float  # ||W - alpha x D||

    @property
    def error(self) -> float:
        """||W - alpha x D|| / ||W||; 0 for kernels that are zero."""
        return self.missed / self.norm if self.norm else 0.0


def overall_error(codes: Sequence[Code]) -> float:
    """The relative error of all kernels taken together, as one long vector."""
    norm = math.hypot(*(code.norm for code in codes))
    return math.hypot(*(code.missed for code in codes)) / norm if norm else 0.0


def to_kernels(
    weight: Float[Tensor, "out in kh kw"], kc: int, name: str = "this convolution", groups: int = 1
) -> Float[Tensor, "rows cols n m"]:
    """The kernels of a weight: itself, or where they are 1x1 (out/kc, in/kc, kc, kc), neighbouring channels together,
    which are of one group."""
    out, in_ = weight.shape[:2]
    if not is_pointwise(weight.shape):
        return weight
    if kc < 1 or (out // groups) % kc or in_ % kc:
        each = f" in each of {groups} groups" if groups > 1 else ""
        raise FactorError(
            f"A 1x1 convolution is regrouped by a kc that divides its channels; {name} has {in_} in and "
            f"{out // groups} out{each}, and kc = {kc} came. Set kc to a divisor of both, or to 0: then 1x1 "
            "convolutions carry nothing."
        )
    return weight.reshape(out // kc, kc, in_ // kc, kc).transpose(1, 2)


def from_kernels(
    kernels: Float[Tensor, "*n rows cols kh kw"], weight_shape: Sequence[int]
) -> Float[Tensor, "*n o i h w"]:
    """The inverse of `to_kernels`, with any axes in front."""
    together = kernels.transpose(-3, -2) if is_pointwise(weight_shape) else kernels
    return together.reshape(*kernels.shape[:-4], *weight_shape[-4:])


def is_pointwise(weight_shape: Sequence[int]) -> bool:
    """Whether a weight's kernels are 1x1."""
    return tuple(weight_shape[-2:]) == (1, 1)


def leading_atoms(rows: Float[Tensor, "n d"], m: int) -> Float[Tensor, "m d"]:
    """The m <= d orthonormal atoms that leave least of `rows`: right singular vectors, largest singular value first.

    Each is defined up to its sign: its largest entry is made positive.
    """
    rows = rows.double()
    if len(rows) < rows.shape[1]:  # so that directions which no kernel has are among the vectors too
        rows = torch.cat([rows, rows.new_zeros(rows.shape[1] - len(rows), rows.shape[1])])
    vectors: Tensor = torch.linalg.svd(torch.linalg.qr(rows, mode="r").R).Vh[:m]
    peaks = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * torch.where(peaks < 0, -1.0, 1.0)


def sparse_code(rows: Float[Tensor, "n d"], atoms: Float[Tensor, "m d"], nonzeros: int) -> Float[Tensor, "n m"]:
    """Each row as a sum of at most `nonzeros` <= d of the atoms, by orthogonal matching pursuit, all rows at once.

    The atom that goes best with what is left of a row joins its support, and the code is the least-squares one on it
    (Pati, Rezaiifar and Krishnaprasad 1993). Atoms have length 1.
    """
    if not 1 <= nonzeros <= min(atoms.shape):
        raise FactorError(
            f"A sparse code has 1 to {min(atoms.shape)} nonzeros, for {atoms.shape[0]} atoms of {atoms.shape[1]} "
            f"numbers; came {nonzeros}. Ask for fewer: that many reconstruct every kernel exactly."
        )
    atoms = atoms.double()
    return torch.cat([_pursuit(chunk.double(), atoms, nonzeros) for chunk in rows.split(_CHUNK)])


def _pursuit(rows: Tensor, atoms: Tensor, nonzeros: int) -> Tensor:
    """The support's atoms become orthonormal as they join, atom = Q' r, so that the code solves R c = Q row."""
    n, d = rows.shape
    left, free = rows.clone(), rows.new_ones(n, len(atoms))
    support = torch.empty(n, nonzeros, dtype=torch.int64)
    Q, R, said = rows.new_zeros(n, nonzeros, d), rows.new_zeros(n, nonzeros, nonzeros), rows.new_zeros(n, nonzeros, 1)
    for step in range(nonzeros):
        chosen = ((left @ atoms.T).abs() * free - (1 - free)).argmax(1, keepdim=True)
        support[:, step : step + 1] = chosen
        free.scatter_(1, chosen, 0.0)
        new, before = atoms[chosen], Q[:, :step]
        for _ in range(2):  # once more for the digits that the first projection lost
            part = new @ before.mT
            new, R[:, :step, step] = new - part @ before, R[:, :step, step] + part[:, 0]
        length = new.norm(dim=2)
        spanned = length < _NOTHING  # such an atom adds nothing: its coefficient is to be zero
        R[:, step, step] = torch.where(spanned, 1.0, length)[:, 0]
        Q[:, step] = torch.where(spanned, 0.0, new[:, 0] / length)
        said[:, step] = (Q[:, step] * left).sum(1, keepdim=True)
        left = left - Q[:, step] * said[:, step]
    found = torch.linalg.solve_triangular(R, said, upper=True)
    return rows.new_zeros(n, len(atoms)).scatter_(1, support, found[:, :, 0])


@torch.no_grad()
def decompose(kernels: Float[Tensor, "out in kh kw"], m: int, generator: torch.Generator, *, nonzeros: int = 0) -> Code:
    """Atoms for these kernels, and the kernels' coefficients; `generator` draws the atoms beyond K_h*K_w.

    m <= K_h*K_w: the projection on the leading atoms, error 0 at m = K_h*K_w. m > K_h*K_w: a sparse code of `nonzeros`
    atoms a kernel; 0: K_h*K_w of them, the fewest that reconstruct every kernel exactly.
    """
    out, in_, high, wide = kernels.shape
    numbers = high * wide
    rows = kernels.detach().to("cpu", torch.float64).reshape(out * in_, numbers)
    atoms = leading_atoms(rows, min(m, numbers))
    if m > numbers:
        drawn = torch.randn(m - numbers, numbers, generator=generator, dtype=torch.float64)
        atoms = torch.cat([atoms, drawn / drawn.norm(dim=1, keepdim=True)])
    alpha = sparse_code(rows, atoms, nonzeros or numbers) if m > numbers else rows @ atoms.T
    missed, like = float((rows - alpha @ atoms).norm()), kernels.dtype
    return Code(alpha.view(out, in_, m).to(like), atoms.view(m, high, wide).to(like), float(rows.norm()), missed)


def delta(alpha: Float[Tensor, "*n o i m"], D: Float[Tensor, "*n m kh kw"]) -> Float[Tensor, "*n o i kh kw"]:
    """alpha x D: every kernel is its sum over the atoms. Any (cameras') axes in front."""
    return torch.einsum("...oim,...mkl->...oikl", alpha, D)


def delta_by_channel(
    alpha: Float[Tensor, "*n o i m"], alpha1: Float[Tensor, "*n i m m1"], D1: Float[Tensor, "*n m m1 kh kw"]
) -> Float[Tensor, "*n o i kh kw"]:
    """alpha x (alpha1 x D1), the overcomplete form: every channel in has atoms of its own, each a sum over m1.

    The shapes are those of the paper's authors' release: alpha1 combines, for each of in*m atoms, the m1 atoms that all
    channels share, m*m1 in all.
    """
    D = torch.einsum("...imn,...mnkl->...imkl", alpha1, D1)
    return torch.einsum("...oim,...imkl->...oikl", alpha, D)


def init_combination(
    channels: int, m: int, m1: int, kernel: Sequence[int], generator: torch.Generator
) -> tuple[Float[Tensor, "in m m1"], Float[Tensor, "m m1 kh kw"]]:
    """Fresh alpha1 and D1 for kernels of this shape, float32: D1 zero, so that the delta is; alpha1 Kaiming-uniform
    with a = sqrt(5).

    That is within 1 / sqrt(m1), m1 being what is summed over, as LoRA-C draws its A.
    """
    flat = torch.empty(channels * m, m1)
    torch.nn.init.kaiming_uniform_(flat, a=math.sqrt(5), generator=generator)
    return flat.view(channels, m, m1), torch.zeros(m, m1, *kernel)
