"""How many cameras to train side by side: the figures behind `fed_lorac.training.blocks.block_size`.

Times whole turns of a few steps, set-up included, by `fed_lorac.training.loop.train`: N cameras as one block, and
cameras one at a time, in turn. A figure is the median of the ratios of neighbours, per camera and step: block / alone,
below 1 where standing side by side is faster.

    python benchmarks/blocks.py [--json] [--device cpu] [--threads 1] [--repeats 5] [--steps 8]
        [--networks resnet8-w4 resnet8 resnet20] [--methods lora-c full] [--sizes 2 4 8 16] [--batch 15 50]

`--device cuda` runs the same on a GPU; with `--graphed` the block's forward and backward passes are one CUDA graph,
recorded anew in each turn (`graphed.py`), so let turns be long:

    python benchmarks/blocks.py --json --device cuda --networks resnet20 --methods "lora-c r" full --precisions bf16
        --sizes 4 16 64 --batch 50 --steps 100 --repeats 3 --graphed
"""

import argparse
import copy
from typing import Any

import numpy as np
import torch
from common import alternating_s, arguments, deliver, header, median_ratio, require, say
from graphed import GraphedLabels
from torch import nn

from fed_lorac.adapters.atp import Atp
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.models import build
from fed_lorac.runtime.precision import Precision
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.blocks import block_size
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.objective import Labels
from fed_lorac.training.recipe import Recipe, Task

NETWORKS = {
    "resnet8-w4": ("resnet8", 4),
    "resnet8": ("resnet8", 0),
    "resnet20": ("resnet20", 0),
    "resnet18": ("resnet18", 0),
}
METHODS = ("lora-c r", "lora-c r*k", "full", "atp")


def network(name: str, method: str, device: str) -> nn.Module:
    model = build(NETWORKS[name][0], width=NETWORKS[name][1])
    if method.startswith("lora-c"):
        LoraC(rank_mode=method.split()[1]).attach(model, torch_stream(0, "lora_c"))
    if method == "atp":
        Atp().prepare(model)
        Atp().attach(model, torch_stream(0, "atp"))
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train(method != "atp")  # rates are learned under fixed statistics


def tasks(count: int, batch: int, steps: int) -> list[Task]:
    made = []
    for k in range(count):
        draw = stream(k, "bench")
        images = torch.from_numpy(draw.integers(0, 256, (4 * batch, 32, 32, 3), np.uint8))
        made.append(Task(images, torch.from_numpy(draw.integers(0, 10, 4 * batch)), steps, draw))
    return made


def measure(
    name: str, method: str, batch: int, precision: Precision, size: int, args: argparse.Namespace
) -> dict[str, Any]:
    recipe = Recipe(lr=0.01, batch_size=batch, precision=precision)
    models = [network(name, method, args.device) for _ in range(size)]
    one = copy.deepcopy(models[0])
    work, alone = tasks(size, batch, args.steps), tasks(1, batch, args.steps)

    def turn(networks: list[nn.Module], given: list[Task], *, graphed: bool = False) -> None:
        train(networks, given, recipe=recipe, objective=GraphedLabels() if graphed else Labels())
        if args.device != "cpu":
            torch.cuda.synchronize()

    many_s, one_s = alternating_s(
        lambda: turn(models, work, graphed=args.graphed), lambda: turn([one], alone), args.repeats
    )
    each_s = [s / size for s in many_s]
    rule = block_size(one, image_size=32, batch_size=batch, precision=precision, device=args.device)
    row = {"network": name, "method": method, "batch": batch, "dtype": precision, "cameras": size, "rule": rule}
    row |= {"ms_per_camera_step": 1e3 * float(np.median(each_s)) / args.steps}
    row |= {"ms_alone": 1e3 * float(np.median(one_s)) / args.steps, "ratio": median_ratio(each_s, one_s)}
    say(
        f"{name:>10} {method:>10} batch {batch:>3} {precision} N {size:>2}: {row['ms_per_camera_step']:7.2f} ms a "
        f"camera-step, alone {row['ms_alone']:7.2f}, ratio {row['ratio']:.2f}, rule {rule}"
    )
    return row


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--graphed", action="store_true", help="the block's passes are one CUDA graph")
    parser.add_argument("--steps", type=int, default=8, help="steps a turn")
    parser.add_argument("--networks", nargs="+", default=["resnet8-w4", "resnet8", "resnet20"], choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--batch", type=int, nargs="+", default=[15, 50])
    args = parser.parse_args()
    require(args.device)
    torch.set_num_threads(args.threads)
    head = header(args.device)
    rows = [
        measure(name, method, batch, precision, size, args)
        for name in args.networks
        for method in args.methods
        for batch in args.batch
        for precision in args.precisions
        for size in args.sizes
    ]
    deliver(
        {"rows": rows, "threads": args.threads, "steps": args.steps, "graphed": args.graphed}, head, as_json=args.json
    )


if __name__ == "__main__":
    main()
