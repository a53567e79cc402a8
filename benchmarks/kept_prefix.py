"""What keeping the prefix gains: a local update with the last stage adapted, against the same where every layer is
computed at every step.

Times whole local updates by `fed_lorac.training.loop.train`, set-up included, in blocks of the size that the product's
rule gives: statistics fixed, nothing augmented, LoRA-C on the last stage and the classifier. Both arms end with the
same bits, or the benchmark ends. They take turns; a figure is the median of the ratios of neighbours, recomputed over
kept: above 1 is faster.

    python benchmarks/kept_prefix.py [--json] [--network resnet20] [--images 500] [--epochs 5] [--batch 15 50]
        [--precisions bf16 fp32] [--threads 1] [--repeats 3] [--device cpu]
"""

import argparse
import copy
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common import alternating_s, arguments, deliver, header, median_ratio, require, say
from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.linear_probe import LinearProbe
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.models import build
from fed_lorac.runtime.precision import Precision
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.accuracy import batch_norms
from fed_lorac.training.blocks import block_size
from fed_lorac.training.loop import train
from fed_lorac.training.recipe import Recipe, Task

ADAPTED: dict[str, Adapter] = {
    "last stage": LoraC(layers="layer3.*", train_first_conv=False),
    "last block": LoraC(layers="layer3.2.*", train_first_conv=False),
    "classifier": LinearProbe(),
}


def networks(name: str, adapter: Adapter, count: int, device: str) -> list[nn.Module]:
    """A network for each camera over one base, each with statistics of its own, which stay."""
    base, made = build(name), []
    for k in range(count):
        model, draw = copy.deepcopy(base), torch_stream(k, "camera")
        adapter.attach(model, torch_stream(0, "lora_c"))
        for _, norm in batch_norms(model):
            norm.running_var.uniform_(0.5, 2.0, generator=draw)  # type: ignore[operator, union-attr]
        made.append(model.to(device, memory_format=torch.channels_last).eval())  # type: ignore[call-overload]
    return made


def tasks(count: int, images: int, steps: int) -> list[Task]:
    made = []
    for k in range(count):
        draw = stream(k, "bench")
        pixels = torch.from_numpy(draw.integers(0, 256, (images, 32, 32, 3), np.uint8))
        made.append(Task(pixels, torch.from_numpy(draw.integers(0, 10, images)), steps, draw))
    return made


def measure(what: str, batch: int, precision: Precision, args: argparse.Namespace) -> dict[str, Any]:
    recipe = Recipe(lr=0.01, batch_size=batch, augment="none", precision=precision)
    adapter = ADAPTED[what].fit_to(build(args.network))
    size = block_size(
        networks(args.network, adapter, 1, args.device)[0],
        image_size=32,
        batch_size=batch,
        precision=precision,
        device=args.device,
    )
    steps = args.epochs * -(-args.images // batch)
    ends: dict[bool, list[nn.Module]] = {}

    def turn(keep: bool) -> None:
        ends[keep] = networks(args.network, adapter, size, args.device)
        train(ends[keep], tasks(size, args.images, steps), recipe=replace(recipe, kept_bytes=recipe.kept_bytes * keep))
        if args.device != "cpu":
            torch.cuda.synchronize()

    whole_s, kept_s = alternating_s(lambda: turn(False), lambda: turn(True), args.repeats)
    for one, other in zip(ends[False], ends[True], strict=True):
        if not all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        ):
            raise SystemExit("Both arms end with the same bits; these differ.")
    row = {"adapted": what, "batch": batch, "dtype": precision, "cameras": size, "ratio": median_ratio(whole_s, kept_s)}
    row |= {"recomputed_s": statistics.median(whole_s), "kept_s": statistics.median(kept_s)}
    say(
        f"{what:>12} batch {batch:>3} {precision} N {size}: {row['recomputed_s']:.2f} s, kept {row['kept_s']:.2f} s, "
        f"ratio {row['ratio']:.2f}"
    )
    return row


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--images", type=int, default=500, help="images of a camera")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[15, 50])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["fp32", "bf16"])
    parser.add_argument("--adapted", nargs="+", default=list(ADAPTED), choices=list(ADAPTED))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    require(args.device)
    torch.set_num_threads(args.threads)
    head = header(args.device)
    rows = [measure(what, batch, p, args) for what in args.adapted for batch in args.batch for p in args.precisions]
    settings = {key: getattr(args, key) for key in ("network", "images", "epochs", "threads", "repeats")}
    deliver({"rows": rows, "settings": settings}, head, as_json=args.json)


if __name__ == "__main__":
    main()
