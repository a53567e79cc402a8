"""The rule: how many cameras train side by side. Knows shapes, precision and device types; times nothing itself.

Blocks of other sizes agree to rounding only, so a rule that looked at a clock, free memory or the number of workers
would change results: this one reads nothing but its arguments.
"""

import copy
from typing import Any

import torch
from torch import nn

from fed_lorac.adapters.adapting import AdaptsToBatch
from fed_lorac.runtime.precision import Precision
from fed_lorac.training.blocks.stack import why_apart

__all__ = ["block_size", "shape_of_work"]

# Lanes of a 512-bit vector: a layer with fewer channels leaves the rest of them empty.
_LANES = {"fp32": 16, "bf16": 32}
_CPU_NUMBERS, _CPU_MOST = 1 << 20, 8
_GPU_NUMBERS, _GPU_MOST = 1 << 26, 64


def block_size(
    model: nn.Module, *, image_size: int, batch_size: int, precision: Precision = "fp32", device: str = "cpu"
) -> int:
    """How many networks like `model`, as it will be trained, are to run side by side: a power of two.

    1 where they cannot (`why_apart`). On a CPU: 1 where the narrowest convolution fills a vector; else as many as keep
    the largest activation of all together within 2**20 numbers, at most 8. From `benchmarks/blocks.py`: time per
    camera and step over that of one at a time, set-up included, LoRA-C (r = 2) and full fine-tuning, 32x32 images,
    1 thread of a busy 2-core AMD EPYC with AVX-512 and bf16, torch 2.15.0, 2026-11-21; network and batch size, * is the
    rule's choice where it is not 1:

                                bf16, N = 2   4             8             fp32, N = 2   4             8
        resnet8 width 4, 15     0.68 to 0.69  0.48 to 0.51  0.43 to 0.49* 0.60 to 0.75  0.44 to 0.58  0.40 to 0.50*
        resnet8 width 4, 50     0.80 to 0.84  0.56*         0.54 to 0.55  0.57 to 0.75  0.44 to 0.62* 0.69 to 0.77
        resnet8, 15             0.90 to 0.92  0.66 to 0.80* 0.84 to 0.89  0.98 to 1.20  1.04 to 1.18  1.14 to 1.23
        resnet8, 50             0.76 to 1.01  1.17 to 1.19                1.04 to 1.28  1.25 to 1.57
        resnet20, 15            0.90 to 0.92  0.84 to 0.86*               0.93 to 0.99  0.96 to 1.22
        resnet20, 50            1.09 to 1.12                              1.21 to 1.23
        resnet18, 15            1.45

    N = 16 gave 0.37 to 0.41 (bf16) and 0.43 to 0.54 (fp32) for the first row: no more than N = 8 within its scatter.
    LoRA-C's two rank modes and full fine-tuning share the rule: their ratios differ by no more than they scatter.
    Networks that adapt to each batch (`atp`) find their directions in fp32 whatever the precision, so the rule for them
    is fp32's. In batches of 20, by CPU time (2026-11-27), resnet8 of width 4 takes 0.58, 0.47 and 0.42 at N = 2, 4 and
    8 in fp32, and 0.59, 0.42 and 0.43 in bf16; resnet20, alone by the rule, 1.06 and 1.15 at N = 2 and 4 in fp32, and
    1.13 at 2 in bf16.
    Side by side means grouped convolutions over every camera's own weight. The other form, one base convolution over
    the joined batch and grouped branches, takes 2.8 times as long at 16 channels, 1.6 at 32, 1.1 to 1.3 at 64 and 128,
    and less (0.6 to 0.8, 0.2) only at 256 and 512, where cameras train alone anyway (`benchmarks/block_forms.py`).

    On a GPU a step of a small network is bound by the launches of its kernels, which a block shares: on an H100 a step
    of ResNet-20 takes 0.39 to 0.44 of the time for each of 4 cameras side by side, and 0.14 to 0.16 for each of 16
    (benchmarks/results/blocks-h100.json). So "cuda" gets as many as keep the largest activation within 2**26 numbers
    (some GiB for a whole ResNet), at most 64, a bound by arithmetic. Other devices: 1.
    """
    if why_apart(model):
        return 1
    numbers, channels = shape_of_work(model, image_size)
    kind = torch.device(device).type
    if kind == "cuda":
        return _power_of_two(min(_GPU_MOST, _GPU_NUMBERS // (batch_size * numbers)))
    mostly = "fp32" if isinstance(model, AdaptsToBatch) else precision
    if kind != "cpu" or channels >= _LANES[mostly]:
        return 1
    return _power_of_two(min(_CPU_MOST, _CPU_NUMBERS // (batch_size * numbers)))


def _power_of_two(most: int) -> int:
    """The largest power of two up to `most`, at least 1."""
    return 1 << max(0, most.bit_length() - 1)


@torch.no_grad()
def shape_of_work(model: nn.Module, image_size: int) -> tuple[int, int]:
    """Numbers in a convolution's largest output for one image of 3 channels, and channels of the narrowest output.

    A network without convolutions has nothing but its input. An image of zeros goes through a copy: PyTorch's "meta"
    device would spare the arithmetic, and takes longer, as it imports PyTorch's compiler.
    """
    shadow, outputs = copy.deepcopy(model).eval(), [torch.Size((1, 3, image_size, image_size))]

    def note(layer: nn.Module, args: Any, output: torch.Tensor) -> None:
        outputs.append(output.shape)

    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    like = next(shadow.parameters(), torch.empty(0))
    shadow(torch.zeros(outputs[0], dtype=like.dtype, device=like.device))
    return max(size.numel() for size in outputs), min(size[1] for size in outputs[1:] or outputs)
