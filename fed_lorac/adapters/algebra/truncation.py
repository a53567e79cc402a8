"""Truncation: the best approximation of rank u, as balanced factors. Knows matrices; not what they change.

Both ways reckon in float64, whatever came, and give factors of the dtype that came: a singular value a thousandth of
the largest keeps its digits, and the result does not hang on float32 rounding. By Eckart and Young the Frobenius error
is the root of the sum of the squares of the dropped singular values.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.errors import FactorError

__all__ = ["truncate", "truncate_dense"]

_FEW = 8  # one row in so many, or fewer, and the projection is faster

Pair = tuple[Float[Tensor, "u in_k"], Float[Tensor, "out_k u"]]


def truncate(A: Float[Tensor, "s in_k"], B: Float[Tensor, "out_k s"], rank: int) -> Pair:
    """The pair (A, B) of at most `rank` rows whose product is nearest to the stack's `B @ A` (Frobenius).

    By QR of both sides and the SVD of an s x s core: the dense matrix is never built where the stack is thinner than
    it, s < min(out*K, in*K). The rows are as many as the stack's where those are fewer than `rank`.
    """
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
        raise FactorError(
            f"A stack must be A (s, in*K) and B (out*K, s); came A {tuple(A.shape)} and B {tuple(B.shape)}. "
            "Kernel-wise factors are truncated dense, in the layer's view."
        )
    if A.shape[0] >= min(A.shape[1], B.shape[0]):
        thin = truncate_dense(B.double() @ A.double(), rank)
        return thin[0].to(A.dtype), thin[1].to(B.dtype)
    q_left, r_left = torch.linalg.qr(B.double())
    q_right, r_right = torch.linalg.qr(A.double().T)
    u, s, vh = torch.linalg.svd(r_left @ r_right.T, full_matrices=False)
    A_u, B_u = _balanced(q_left @ u, s, vh @ q_right.T, rank)
    return A_u.to(A.dtype), B_u.to(B.dtype)


def truncate_dense(M: Float[Tensor, "out_k in_k"], rank: int) -> Pair:
    """The pair (A, B) of at most `rank` rows whose product is nearest to the matrix M, by an SVD in float64.

    Where few rows of many are wanted, the SVD is of M projected on its leading singular vectors.
    """
    if M.ndim != 2:
        raise FactorError(f"A matrix is truncated, a weight in its view; came a tensor of shape {tuple(M.shape)}.")
    few = 0 < rank * _FEW <= min(M.shape)
    u, s, vh = _leading(M.double(), rank) if few else torch.linalg.svd(M.double(), full_matrices=False)
    A_u, B_u = _balanced(u, s, vh, rank)
    return A_u.to(M.dtype), B_u.to(M.dtype)


def _leading(M: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `rank` leading components of the SVD, in half the time of all: by eigenvectors Q of M M' (or M' M).

    Squaring costs small singular values their digits, but only in choosing Q, which is orthonormal whatever it spans:
    the components come from the SVD of Q' M itself, and what Q misses of M is below 1e-8 of M's norm.
    """
    if M.shape[0] > M.shape[1]:
        u, s, vh = _leading(M.T, rank)
        return vh.T, s, u.T
    Q = torch.linalg.eigh(M @ M.T).eigenvectors[:, -rank:]
    u, s, vh = torch.linalg.svd(Q.T @ M, full_matrices=False)
    return Q @ u, s, vh


def _balanced(u: Tensor, s: Tensor, vh: Tensor, rank: int) -> Pair:
    """The leading `rank` components, the root of each singular value on either side."""
    if rank < 1:
        raise FactorError(f"A rank must be at least 1; came {rank}.")
    u, s, vh = u[:, :rank], s[:rank], vh[:rank]
    # A singular pair is defined up to a common sign: the largest entry of each left vector is made positive.
    peaks = u.gather(0, u.abs().argmax(dim=0, keepdim=True)).squeeze(0)
    signs = torch.where(peaks < 0, -1.0, 1.0).to(u.dtype)
    root = s.sqrt()
    return (root * signs)[:, None] * vh, u * (root * signs)
