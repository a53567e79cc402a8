"""What one camera's step spends its CPU time on: convolution, batch norm, ReLU and so on, and the rest, Python.

Shares of a step's CPU seconds on one thread. PyTorch's profiler says how its operations share a step's time, and slows
small operations down: what a step takes beyond one without the profiler is taken off everything but convolution. Other
load on the machine stretches all alike. `rest` is what is not convolution.

    python benchmarks/step_shares.py --json [--statistics batch|fixed] [--precision fp32|bf16] [--network resnet20]
        [--batch 50] [--rank 2] [--steps 10] [--repeats 5]

What a CPU with AVX2 alone does: env ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/step_shares.py
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from common import arguments, deliver, header, say
from step import our_arm
from torch.profiler import ProfilerActivity, profile

from fed_lorac.runtime.allocator import keep_freed_memory

KINDS = {
    "convolution": ("convolution", "mkldnn_convolution", "convolution_backward", "_convolution"),
    "batch_norm": ("native_batch_norm", "native_batch_norm_backward", "batch_norm"),
    "relu": ("clamp_min", "clamp_min_", "threshold_backward", "relu", "relu_"),
    "sums": ("add", "add_"),
    "images": ("index", "constant_pad_nd", "reflection_pad2d", "normalize", "div", "div_"),
    "factors": ("mm", "addmm", "bmm", "matmul"),
    "optimizer": ("_foreach_mul_", "_foreach_add_", "linalg_vector_norm", "_foreach_norm", "stack"),
}
KIND_OF = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--statistics", default="batch", choices=["batch", "fixed"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    args.device = "cpu"
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    head = header()
    deliver(measured(args), head, as_json=args.json)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    turn = our_arm(args, fixed=args.statistics == "fixed")
    turn()
    found = [shares(turn) for _ in range(args.repeats)]
    step_ms = statistics.median(cpu_s for cpu_s, _ in found) / args.steps * 1e3
    middle = {kind: statistics.median(one[kind] for _, one in found) for kind in found[0][1]}
    say(f"{step_ms:.1f} ms a step: {middle}")
    return {
        "rest": round(1 - middle["convolution"], 3),
        "shares": {kind: round(share, 3) for kind, share in middle.items()},
        "cpu_ms_a_step": round(step_ms, 2),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
    }


def shares(turn: Callable[[], None]) -> tuple[float, dict[str, float]]:
    """A turn's CPU seconds without the profiler, and what shares of them went where."""
    began = time.thread_time()
    turn()
    bare_s = time.thread_time() - began
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        began, wall = time.thread_time(), time.perf_counter()
        turn()
        cpu_s, wall_s = time.thread_time() - began, time.perf_counter() - wall
    each: dict[str, float] = defaultdict(float)
    for event in watched.key_averages():
        each[KIND_OF.get(event.key, "other_operations")] += event.self_cpu_time_total / 1e6 / wall_s
    each["python"] = max(0.0, 1 - sum(each.values()))
    convolution = each["convolution"] * cpu_s / bare_s
    slower = (1 - convolution) / (1 - each["convolution"])
    each = {kind: its * slower for kind, its in each.items()} | {"convolution": convolution}
    return bare_s, {kind: each.get(kind, 0.0) for kind in [*KINDS, "other_operations", "python"]}


if __name__ == "__main__":
    main()
