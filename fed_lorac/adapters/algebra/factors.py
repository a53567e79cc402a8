"""Factor pairs: the algebra of LoRA-C. Knows weights' shapes, ranks and products; no layers, cameras or messages.

A convolution's weight (out, in, K, K) is seen as a matrix of out*K rows and in*K columns by a row-major reshape, its
"view". Layer-wise factors A: (R, in*K) and B: (out*K, R) add `scale * reshape(B @ A)` to it with scale = alpha / r
(LoRA-C, arXiv 2410.16954, section III). The kernel-wise ablation has one pair a kernel, A: (out, in, r, K) and
B: (out, in, K, r), and the same product. A matrix (a linear layer's weight) is its own view.

The "filter" view has out rows and in*K*K columns, and factors A: (R, in*K*K), B: (out, R): r filters and a 1x1 mapper,
which is how PEFT's and FLoCoRA's conv LoRA and LoRAE are parametrised. The product and its reshape are the same.

All of this is of the weight's own shape: `in` is what a weight has, in_channels / groups, so the r filters of a grouped
convolution look at each group alike; and where a kernel is K_h high and K_w wide, rows are out*K_h, columns in*K_w, and
"r*k" counts its longer side.

Truncation is the best approximation of rank u, as balanced factors. It reckons in float64, whatever came, and gives
factors of the dtype that came: a singular value a thousandth of the largest keeps its digits, and the result does not
hang on float32 rounding. By Eckart and Young the Frobenius error is the root of the sum of the squares of the dropped
singular values.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.errors import FactorError

__all__ = [
    "check_pair",
    "delta",
    "init_factors",
    "rank_rows",
    "stack",
    "to_view",
    "truncate",
    "truncate_dense",
    "two_step_kernels",
    "view_of",
]


RANK_MODES = ("r*k", "r", "filter")


def rank_rows(rank: int, kernel_size: int, rank_mode: str) -> int:
    """Rows R of A for a kernel whose longer side is K: `rank * K` in rank mode "r*k", `rank` in "r" (the paper's two
    settings)."""
    if rank < 1 or kernel_size < 1:
        raise FactorError(f"A rank and a kernel size must be at least 1; came rank {rank}, kernel size {kernel_size}.")
    if rank_mode not in RANK_MODES:
        raise FactorError(
            f"A rank mode must be 'r*k' (R = r*K rows), 'r' (R = r rows) or 'filter' (r rows); came {rank_mode!r}. "
            "'auto' is settled for a whole network at attach."
        )
    return rank * kernel_size if rank_mode == "r*k" else rank


def view_of(weight_shape: Sequence[int], rank_mode: str = "r") -> tuple[int, int]:
    """Rows and columns of a weight's matrix view: (out*K_h, in*K_w) for (out, in, K_h, K_w), itself for a matrix.

    In rank mode "filter": (out, in*K_h*K_w).
    """
    out, in_, high, wide = _sides(weight_shape)
    return (out, in_ * high * wide) if rank_mode == "filter" else (out * high, in_ * wide)


def _sides(weight_shape: Sequence[int]) -> tuple[int, int, int, int]:
    """out, in, K_h and K_w; of a matrix's weight the last two are 1."""
    shape = tuple(int(n) for n in weight_shape)
    if len(shape) not in (2, 4):
        raise FactorError(
            f"Factors change weights of shape (out, in, K_h, K_w), of a 2-D convolution, or (out, in); came {shape}. "
            "Send this tensor's delta dense."
        )
    out, in_, high, wide = (*shape, 1, 1)[:4]
    return out, in_, high, wide


def to_view(weight: Tensor) -> Float[Tensor, "out_k in_k"]:
    """A weight, or a dense delta of one, in LoRA-C's matrix view."""
    return weight.reshape(view_of(weight.shape))


def init_factors(
    weight_shape: Sequence[int],
    rank: int,
    rank_mode: str,
    generator: torch.Generator,
    *,
    kernel_wise: bool = False,
) -> tuple[Tensor, Tensor]:
    """Fresh float32 factors (A, B) on the CPU: B zero, so delta = 0; A as nn.Linear's weight, Kaiming with a = sqrt(5).

    That is uniform within 1 / sqrt(columns of A). Layer-wise A: (R, in*K_w), B: (out*K_h, R) with R = `rank_rows`; in
    rank mode "filter" A: (r, in*K_h*K_w), B: (out, r);
    kernel-wise A: (out, in, r, K_w), B: (out, in, K_h, r), whatever the rank mode.
    """
    rows, cols = view_of(weight_shape, rank_mode)
    out, in_, high, wide = _sides(weight_shape)
    height = rank_rows(rank, max(high, wide), rank_mode)
    a_shape: tuple[int, ...] = (height, cols)
    b_shape: tuple[int, ...] = (rows, height)
    if kernel_wise:
        a_shape, b_shape = (out, in_, rank, wide), (out, in_, high, rank)
    flat = torch.empty(math.prod(a_shape[:-1]), a_shape[-1])  # the fan-in is the last axis in both forms
    torch.nn.init.kaiming_uniform_(flat, a=math.sqrt(5), generator=generator)
    return flat.view(a_shape), torch.zeros(b_shape)


def check_pair(A: Tensor, B: Tensor, weight_shape: Sequence[int], name: str = "this convolution") -> None:
    """Raise FactorError unless A and B, layer-wise or kernel-wise, multiply to a delta of a weight of this shape."""
    rows, cols = view_of(weight_shape)
    if A.ndim == 2 and B.ndim == 2:
        views = (view_of(weight_shape, mode) for mode in RANK_MODES)
        fits = (B.shape[0], A.shape[1]) in views and A.shape[0] == B.shape[1]
    elif A.ndim == 4 and B.ndim == 4 and len(weight_shape) == 4:
        out, in_, high, wide = weight_shape
        fits = tuple(A.shape) == (out, in_, A.shape[2], wide) and tuple(B.shape) == (out, in_, high, A.shape[2])
    else:
        fits = False
    if not fits:
        raise FactorError(
            f"The factors of {name}, weight {tuple(weight_shape)}, are A (R, {cols}) and B ({rows}, R), or of its "
            f"filter view, or one such pair a kernel; came A {tuple(A.shape)} and B {tuple(B.shape)}. Were they made "
            "for another layer or rank?"
        )


def delta(A: Tensor, B: Tensor, weight_shape: Sequence[int], scale: float) -> Tensor:
    """The dense delta `scale * reshape(B @ A, weight_shape)`, row-major (LoRA-C's equation for delta W).

    A: (R, in*K) and B: (out*K, R), or A: (R, in*K*K) and B: (out, R), or kernel-wise A: (out, in, r, K) and
    B: (out, in, K, r). FactorError on a misfit.
    """
    check_pair(A, B, weight_shape)
    return ((scale * B) @ A).reshape(tuple(weight_shape))  # B is smaller than the product


def two_step_kernels(
    A: Float[Tensor, "R in_kw"], B: Float[Tensor, "out_kh R"], weight_shape: Sequence[int], groups: int = 1
) -> tuple[Float[Tensor, "groups*q in kh kw"], Float[Tensor, "out q 1 1"]]:
    """A' and B' of the exact two-step form: conv(x, reshape(B @ A)) = conv1x1(conv(x, A'), B'), both of `groups`.

    Row o*K_h + p of B @ A fills the p-th run of in*K_w entries of filter o, so A' repeats A, shifted by one run for
    each p: a block diagonal, q = K_h*R channels high. In the filter view A' is A itself, R filters. Every group of x
    meets the same A'. The dense delta is never built.
    """
    check_pair(A, B, weight_shape)
    if A.ndim != 2:
        raise FactorError("The two-step form is of layer-wise factors; kernel-wise ones came. Use the dense delta.")
    out, in_, high, wide = weight_shape
    runs = B.shape[0] // out  # K_h, and 1 in the filter view
    inner: Tensor = torch.block_diag(*[A] * runs)  # type: ignore[no-untyped-call]
    inner = inner.view(runs * A.shape[0], in_, high, wide)
    return inner.repeat(groups, 1, 1, 1) if groups > 1 else inner, B.view(out, runs * A.shape[0], 1, 1)


def stack(pairs: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """One pair (A, B) whose product is `sum_k weights[k] * B_k @ A_k`: A's stacked, weighted B's side by side.

    Rank rows add up. Layer-wise or kernel-wise, not mixed. FactorError when pairs and weights do not fit.
    """
    if not pairs or len(pairs) != len(weights):
        raise FactorError(f"A stack needs a weight for each of its pairs; came {len(pairs)} and {len(weights)}.")
    A0, B0 = pairs[0]
    for A, B in pairs:
        if A.shape[:-2] != A0.shape[:-2] or A.shape[-1] != A0.shape[-1] or B.shape[:-1] != B0.shape[:-1]:
            raise FactorError(
                "Stacked factors must be of one layer and differ in rank only; came "
                f"A {tuple(A.shape)}, B {tuple(B.shape)} beside A {tuple(A0.shape)}, B {tuple(B0.shape)}."
            )
    As = [A for A, _ in pairs]
    Bs = [weight * B for weight, (_, B) in zip(weights, pairs, strict=True)]
    return torch.cat(As, dim=-2), torch.cat(Bs, dim=-1)


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
