"""Two exact forms of one layer for a block: why `fed_lorac.training.blocks.layers` knows the grouped one only.

"grouped": one convolution with N times the groups, over every camera's own W + B_k A_k, on (B, N*C, H, W).
"shared": one dense convolution with the shared base W over the joined batch, (N*B, C, H, W), and beside it every
camera's thin branch, as a grouped convolution on (B, N*C, H, W), relayout included. Forward and backward, one layer,
in turn; a figure is the median of the ratios of neighbours, shared / grouped: above 1 where grouped is faster.

    python benchmarks/block_forms.py [--json] [--device cpu] [--threads 1] [--cameras 8] [--batch 32] [--rank 2]
"""

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from common import alternating_s, arguments, deliver, header, median_ratio, require, say
from torch import Tensor

from fed_lorac.adapters.algebra.factors import two_step_kernels
from fed_lorac.training.batches import autocast

SHAPES = ((16, 32), (32, 16), (64, 8), (128, 16), (256, 8), (512, 4))  # channels, pixels a side


def grouped(x: Tensor, W: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """One grouped convolution; A (N, R, in*K), B (N, out*K, R)."""
    weight = W + (B @ A).view(len(A), *W.shape)
    return F.conv2d(x, weight.flatten(0, 1), padding=1, groups=len(A))


def shared(x: Tensor, W: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """The base over the joined batch, the branches grouped."""
    n, (b, _, h, w) = len(A), x.shape
    joined = x.unflatten(1, (n, -1)).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    y = F.conv2d(joined, W, padding=1).reshape(b, -1, h, w)
    kernels = [two_step_kernels(A[k], B[k], W.shape) for k in range(n)]
    hidden = F.conv2d(x, torch.cat([inner for inner, _ in kernels]), padding=1, groups=n)
    return y + F.conv2d(hidden, torch.cat([outer for _, outer in kernels]), groups=n)


def measure(channels: int, side: int, precision: Any, args: argparse.Namespace) -> dict[str, Any]:
    n, draw = args.cameras, torch.Generator().manual_seed(0)
    x = torch.randn(args.batch, n * channels, side, side, generator=draw)
    x = x.to(args.device).contiguous(memory_format=torch.channels_last).requires_grad_()
    W = torch.randn(channels, channels, 3, 3, generator=draw).to(args.device)
    A = torch.randn(n, args.rank, 3 * channels, generator=draw).to(args.device).requires_grad_()
    B = torch.randn(n, 3 * channels, args.rank, generator=draw).to(args.device).requires_grad_()

    def step(form: Any) -> None:
        with autocast(precision, args.device):
            y = form(x, W, A, B)
        y.sum().backward()
        if args.device != "cpu":
            torch.cuda.synchronize()

    assert torch.allclose(grouped(x, W, A, B), shared(x, W, A, B), rtol=1e-3, atol=1e-2 * channels)
    shared_s, grouped_s = alternating_s(lambda: step(shared), lambda: step(grouped), args.repeats)
    ratio = median_ratio(shared_s, grouped_s)
    say(f"{channels:>4} channels, {side:>2} pixels, {precision}: shared / grouped {ratio:.2f}")
    return {"channels": channels, "side": side, "dtype": precision, "shared_over_grouped": ratio}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    require(args.device)
    torch.set_num_threads(args.threads)
    head = header(args.device)
    rows = [measure(c, side, precision, args) for precision in ("fp32", "bf16") for c, side in SHAPES]
    deliver({"rows": rows, "cameras": args.cameras, "batch": args.batch}, head, as_json=args.json)


if __name__ == "__main__":
    main()
