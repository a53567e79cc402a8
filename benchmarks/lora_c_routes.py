"""Which exact route of LoRA-C is faster, by shape: the figures behind `fed_lorac.adapters.low_rank.faster_route`.

Times one training step (forward and backward, the input's gradient included) of one layer, by the dense route and the
thin route in turn, channels-last, and prints the median of the ratios of neighbours: thin / dense, below 1 where the
thin route wins. Neighbours share whatever else the machine was doing, so the ratio holds on a busy one.

    python benchmarks/lora_c_routes.py [--json FILE] [--threads 1] [--device cpu] [--seconds 0.5] [--batch 50 128]
"""

import argparse
import datetime
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import init_factors
from fed_lorac.adapters.branches import Branch, inject
from fed_lorac.adapters.low_rank import LoraConv2d, faster_route
from fed_lorac.seeds import torch_stream

# (out, in, K, stride, input pixels a side); every kind of branch in the networks, each once.
SHAPES = {
    "resnet20": [
        (16, 16, 3, 1, 32),
        (32, 16, 3, 2, 32),
        (32, 16, 1, 2, 32),
        (32, 32, 3, 1, 16),
        (64, 32, 3, 2, 16),
        (64, 32, 1, 2, 16),
        (64, 64, 3, 1, 8),
    ],
    "resnet18": [
        (64, 64, 3, 1, 32),
        (128, 64, 3, 2, 32),
        (128, 64, 1, 2, 32),
        (128, 128, 3, 1, 16),
        (256, 128, 3, 2, 16),
        (256, 128, 1, 2, 16),
        (256, 256, 3, 1, 8),
        (512, 256, 3, 2, 8),
        (512, 256, 1, 2, 8),
        (512, 512, 3, 1, 4),
    ],
    "resnet50": [(256, 64, 1, 1, 32), (64, 256, 1, 1, 32), (1024, 256, 1, 1, 8), (512, 2048, 1, 1, 4)],
}
SETTINGS = [(1, "r"), (1, "r*k"), (4, "r"), (4, "r*k"), (16, "r"), (16, "r*k")]


def layer_of(shape: tuple[int, ...], rank: int, rank_mode: str, device: str) -> LoraConv2d:
    out, in_, k, stride, _ = shape
    conv = nn.Conv2d(in_, out, k, stride, k // 2, bias=False, device=device).to(memory_format=torch.channels_last)
    conv.weight.requires_grad_(False)
    A, B = init_factors(conv.weight.shape, rank, rank_mode, torch_stream(0, "bench"))
    B = torch.randn(B.shape, generator=torch_stream(0, "bench", "B"))
    inject(conv, LoraConv2d, Branch({"A": A, "B": B}, {}, {"scale": 1.0, "route": "auto"}))
    assert isinstance(conv, LoraConv2d)
    return conv


def step_s(layer: LoraConv2d, x: Tensor, bf16: bool) -> float:
    layer.A.grad = layer.B.grad = x.grad = None
    started = time.perf_counter()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        y = layer(x)
    y.backward(torch.ones_like(y))
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(layer: LoraConv2d, x: Tensor, bf16: bool, seconds: float) -> dict[str, float]:
    times: dict[str, list[float]] = {"dense": [], "thin": []}
    started = time.perf_counter()
    while len(times["dense"]) < 4 or time.perf_counter() - started < seconds:
        for route in ("dense", "thin"):
            layer.route = route
            times[route].append(step_s(layer, x, bf16))
    del times["dense"][0], times["thin"][0]  # the first pair warms up
    ratios = [thin / dense for dense, thin in zip(times["dense"], times["thin"], strict=True)]
    return {
        "dense_ms": 1e3 * statistics.median(times["dense"]),
        "thin_ms": 1e3 * statistics.median(times["thin"]),
        "ratio": statistics.median(ratios),
    }


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for network in args.networks:
        for shape in SHAPES[network]:
            for batch in args.batch:
                for bf16 in (False, True):
                    found += measure(network, shape, batch, bf16, args=args)
    return found


def measure(
    network: str, shape: tuple[int, ...], batch: int, bf16: bool, *, args: argparse.Namespace
) -> list[dict[str, Any]]:
    dtype = torch.bfloat16 if bf16 else torch.float32
    x = torch.randn(batch, shape[1], shape[4], shape[4], device=args.device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    found = []
    for rank, mode in SETTINGS if shape[2] > 1 else [s for s in SETTINGS if s[1] == "r"]:
        layer = layer_of(shape, rank, mode, args.device)
        height = layer.A.shape[0]
        row = {"network": network, "out_in_k_stride_pixels": shape, "batch": batch, "rank_rows": height}
        row |= {"dtype": "bf16" if bf16 else "fp32", **compare(layer, x, bf16, args.seconds)}
        row["rule"] = faster_route(layer.weight.shape, height, args.device)
        print(
            f"{network} {shape!s:>22} batch {batch:>3} {row['dtype']} R {height:>2}  dense {row['dense_ms']:8.2f} ms  "
            f"thin {row['thin_ms']:8.2f} ms  ratio {row['ratio']:5.2f}  rule {row['rule']}",
            flush=True,
        )
        found.append(row)
    return found


def machine(device: str) -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": names[0] if names else platform.processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def regret(found: list[dict[str, Any]]) -> str:
    """What the rule loses: the geometric mean and the worst of (time by the rule / time by the faster route)."""
    lost = [
        max(1.0, row["ratio"]) / min(1.0, row["ratio"]) if (row["ratio"] < 1) != (row["rule"] == "thin") else 1.0
        for row in found
    ]
    right = sum(value == 1.0 for value in lost)
    return (
        f"the rule picks the faster route in {right} of {len(lost)} cases; its time over the faster route's: "
        f"mean {statistics.geometric_mean(lost):.3f}, worst {max(lost):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write machine and rows to this file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=0.5, help="at least this long a case")
    parser.add_argument("--batch", type=int, nargs="+", default=[50, 128])
    parser.add_argument("--networks", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = machine(args.device)
    print(json.dumps(about))
    found = rows(args)
    print(regret(found))
    if args.json:
        args.json.write_text(json.dumps({"machine": about, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
