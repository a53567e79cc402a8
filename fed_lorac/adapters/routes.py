"""The rule: which exact route a branch takes. Knows shapes and device types; times nothing itself.

Routes agree to rounding only, so a rule that looked at a clock, free memory or the number of workers would change
results: this one reads nothing but its arguments.
"""

from collections.abc import Sequence
from typing import Literal

__all__ = ["faster_route"]

# What the branch's extra passes over the activations cost, in multiplications per channel and pixel: fitted.
_PASSES = 170


def faster_route(weight_shape: Sequence[int], rank_rows: int, device: str = "cpu") -> Literal["dense", "two-step"]:
    """The faster exact route of one training step for a weight (out, in, K, K) and R = `rank_rows` rows of A.

    Two-step where what it spares, the gradient of a dense weight, exceeds what it adds (both in multiplications per
    pixel): the branch, 2*K*R*(in*K*K + out), and its extra passes over the activations, 170*(in + out). The two
    constants are fitted to `benchmarks/lora_c_routes.py`: float32 and bf16 autocast, batch 50 and 128, channels-last,
    1 thread of a busy 2-core AMD EPYC with AVX-512 and bf16, torch 2.15.0, 2026-11-21. Two-step over dense, time:

        weight (out, in, K, K)        R=1          R=4          R=16         R=48
        (16, 16, 3, 3)                1.3 to 1.8   1.5 to 1.9   3.2 to 4.7   8 to 16
        (32, 32, 3, 3)                0.8 to 1.3   1.3 to 1.4   2.2 to 2.6   4.8 to 6.7
        (64, 64, 3, 3)                0.8 to 1.2   1.0 to 1.2   1.2 to 2.0   2.5 to 3.5
        (128, 128, 3, 3)              0.8 to 0.9   0.7 to 1.1   1.1 to 1.5   1.8 to 2.0
        (256, 256, 3, 3)              0.7 to 0.8   0.7 to 0.9   0.6 to 0.9   1.2 to 1.4
        (512, 512, 3, 3)              0.6          0.6 to 0.7   0.6 to 0.7   0.8 to 0.9
        (512, 256, 1, 1)              0.9 to 1.2   1.1 to 1.2   1.1 to 1.3
        (1024, 256, 1, 1)             0.8 to 1.0   0.8 to 1.0   0.8 to 1.1
        (512, 2048, 1, 1)             0.7          0.7          0.7

    In 438 measurements the rule picks the faster route 405 times; its time over the faster route's is 1.008 in the
    mean and 1.41 at worst (always dense: 1.095 and 1.96; always two-step: 1.38 and 16). 126 of them, ResNet-18 and
    ResNet-50 at batch 128, were made after it was set (the fit had seen 31 earlier ones of these): 112, 1.009, 1.22.
    Only the CPU was measured: on other devices the route is the dense one, which launches fewest kernels.
    """
    out, in_, k, _ = (int(n) for n in weight_shape)
    spared = out * in_ * k * k
    added = 2 * k * rank_rows * (in_ * k * k + out) + _PASSES * (in_ + out)
    return "two-step" if device == "cpu" and spared > added else "dense"
