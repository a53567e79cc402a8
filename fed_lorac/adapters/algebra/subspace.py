"""A random subspace by a fast transform: d numbers spread over n by signed Walsh-Hadamard blocks. Knows vectors; no
layers, cameras or messages.

Column j of P (n, d) is made of +1 and -1 over sqrt(n), drawn, and columns are orthogonal over whole blocks: block c
of P is diag(left_c) H diag(right_c) / sqrt(n), H the Walsh-Hadamard matrix of m rows, m the next power of two from d
(of its columns the first d are used), as in Fastfood (Le, Sarlos, Smola 2013). P z takes n log m sums, and P is never
built.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["draw_signs", "spread", "walsh_hadamard"]


def draw_signs(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """left and right, each (blocks, m) of +1 and -1, of a P with n rows and d columns."""
    m = 1 << (d - 1).bit_length()
    shape = (-(-n // m), m)
    left, right = (2.0 * torch.randint(0, 2, shape, generator=generator) - 1 for _ in range(2))
    return left, right


def walsh_hadamard(x: Float[Tensor, "*any m"]) -> Float[Tensor, "*any m"]:
    """H x for the last axis, a power of two long, in Hadamard's order: sums and differences of halves."""
    half = 1
    while half < x.shape[-1]:
        a, b = x.unflatten(-1, (-1, 2, half)).unbind(-2)
        x = torch.stack([a + b, a - b], -2).flatten(-3)
        half *= 2
    return x


def spread(
    z: Float[Tensor, "*any d"], left: Float[Tensor, "*any blocks m"], right: Float[Tensor, "*any blocks m"], n: int
) -> Float[Tensor, "*any n"]:
    """P z, of n numbers; |P z| = |z| but for what a last block that is cut off loses."""
    padded = F.pad(z, (0, right.shape[-1] - z.shape[-1])).unsqueeze(-2)
    return (left * walsh_hadamard(right * padded)).flatten(-2)[..., :n] / math.sqrt(n)
