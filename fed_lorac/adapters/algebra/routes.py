"""The rule: which exact route a branch takes. Knows shapes and device types; times nothing itself.

Routes agree to rounding only, so a rule that looked at a clock, free memory or the number of workers would change
results: this one reads nothing but its arguments.
"""

from collections.abc import Sequence
from typing import Literal

__all__ = ["faster_route"]

# What more passes over the activations cost, in multiplications per channel and pixel: fitted.
_PASSES = 40
# Channels that a vector holds: a tensor of fewer costs as much as one of these.
_LANES = 16


def faster_route(
    weight_shape: Sequence[int], rank_rows: int, device: str = "cpu", *, runs: int = 0
) -> Literal["dense", "thin"]:
    """The faster exact route of one training step for a weight (out, in, K, K) and R = `rank_rows` rows of A.

    Thin where what it spares, the gradient of a dense weight, exceeds what it adds (both in multiplications per pixel):
    convolutions of K*R channels, rounded up to whole vectors of 16, 2*K*R*(in*K*K + out), and more passes over the
    activations, 40*(in + out). The constant is fitted to `benchmarks/lora_c_routes.py`: float32 and bf16 autocast,
    batch 50, channels-last, 1 thread of a busy 2-core AMD EPYC with AVX-512 and bf16, torch 2.15.0, 2026-11-21.
    Thin over dense, time of forward and backward:

        weight (out, in, K, K)        R=1          R=4          R=16         R=48
        (16, 16, 3, 3)                1.4 to 1.9   1.5 to 1.6   3.0 to 3.5   8 to 11
        (32, 32, 3, 3)                1.1 to 1.2   1.1 to 1.2   1.8          3.7 to 3.9
        (64, 64, 3, 3), 8 x 8         0.9          0.9          1.3          2.3 to 2.4
        (64, 64, 3, 3), 32 x 32       0.9          0.9          1.2 to 1.3   2.4 to 2.6
        (128, 128, 3, 3)              0.8          0.8          1.0          1.5
        (256, 256, 3, 3)              0.7          0.7          0.8          1.1
        (512, 512, 3, 3)              0.5 to 0.6   0.6          0.7          0.8
        (128, 64, 1, 1)               1.1 to 1.2   1.1 to 1.2   1.2
        (512, 256, 1, 1)              0.8 to 0.9   0.9          0.9
        (1024, 256, 1, 1)             0.7          0.7          0.7 to 0.8
        (512, 2048, 1, 1)             0.6 to 0.7   0.6 to 0.7   0.7

    In 198 measurements the rule picks the faster route 186 times; its time over the faster route's is 1.002 in the
    mean and 1.07 at worst (always dense: 1.13 and 2.3; always thin: 1.22 and 10.7). The last 24 of them, ResNet-50's,
    were made after it was set. The two-step forward took 1.16 times as long as thin in the mean, 0.88 at best.
    Only the CPU was measured: on other devices the route is the dense one, which launches fewest kernels.
    """
    out, in_, k, _ = (int(n) for n in weight_shape)
    spared, height = out * in_ * k * k, -(-(runs or k) * rank_rows // _LANES) * _LANES
    added = 2 * height * (in_ * k * k + out) + _PASSES * (in_ + out)
    return "thin" if device == "cpu" and spared > added else "dense"
