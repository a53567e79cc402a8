"""How fast one camera trains: images a second on one thread, ours against loralib's ConvLoRA in float32.

The plain arms are what a careful user writes today: `loralib.Conv2d` for every convolution but the first, float32, crop
and flip of the whole batch by one gather, batch norms in training mode, torch.optim.SGD, clipping; once in PyTorch's
own memory layout, once in channels-last. Ours is `fed_lorac.training.loop.train` on the same network with LoRA-C:
"batch" trains with each batch's own statistics as the plain arms do, "fixed" is `training_statistics = "fixed"`, where
batch norms are part of their convolutions. Arms take turns; a figure is the median of the ratios of neighbours (ours
over plain, above 1 is faster).

    python benchmarks/step.py [--json] [--network resnet20] [--batch 50] [--rank 2] [--precision bf16] [--threads 1]
        [--repeats 9] [--steps 6] [--device cpu] [--compile]

`--compile` adds `torch.compile` of the network under "batch", its start-up counted apart: it needs a C++ compiler on
the machine and some minutes of timeouts, so it is not what the product does.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import loralib
import numpy as np
import torch
import torch.nn.functional as F
from common import arguments, deliver, header, median_ratio, require, say, seconds_of
from torch import Tensor, nn

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.models import build
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.accuracy import batch_norms
from fed_lorac.training.loop import train
from fed_lorac.training.recipe import Recipe, Task

_PADDING, _IMAGES = 4, 500


def photos() -> tuple[Tensor, Tensor]:
    draw = stream(0, "bench")
    images = torch.from_numpy(draw.integers(0, 256, (_IMAGES, 32, 32, 3), np.uint8))
    return images, torch.from_numpy(draw.integers(0, 10, _IMAGES))


def plain_arm(args: argparse.Namespace, layout: torch.memory_format) -> Callable[[], None]:
    """A turn of `steps` steps by hand, on a network with ConvLoRA (rank r*K rows of A: the nearest that exists)."""
    model = build(args.network)
    for name, conv in [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][1:]:
        parent, _, leaf = name.rpartition(".")
        shape = (conv.in_channels, conv.out_channels, conv.kernel_size[0])
        rank = max(1, args.rank // conv.kernel_size[0])
        settings = {"stride": conv.stride, "padding": conv.padding, "bias": False}
        setattr(model.get_submodule(parent), leaf, loralib.Conv2d(*shape, r=rank, lora_alpha=2 * rank, **settings))
    loralib.mark_only_lora_as_trainable(model)
    model.get_parameter("conv1.weight").requires_grad_(True)
    model.get_parameter("fc.weight").requires_grad_(True)
    model.to(args.device, memory_format=layout).train()  # type: ignore[call-overload]
    images, labels = photos()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))
    x = ((images.permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous(memory_format=layout).to(args.device)
    return lambda: plain_turn(model, x, labels.to(args.device), args)


def plain_turn(model: nn.Module, images: Tensor, labels: Tensor, args: argparse.Namespace) -> None:
    trained = [p for p in model.parameters() if p.requires_grad]
    sgd = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=5e-4)
    order = torch.randperm(_IMAGES, device=images.device)
    for batch in order.split(args.batch)[: args.steps]:
        loss = F.cross_entropy(model(cropped(images[batch])), labels[batch])
        sgd.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        sgd.step()
    float(loss.detach())


def cropped(x: Tensor) -> Tensor:
    n, _, height, width = x.shape
    padded = F.pad(x, (_PADDING,) * 4)
    top, left = torch.randint(0, 2 * _PADDING + 1, (2, n), device=x.device)
    rows = top[:, None] + torch.arange(height, device=x.device)
    cols = left[:, None] + torch.arange(width, device=x.device)
    cols = torch.where(torch.rand(n, device=x.device)[:, None] < 0.5, cols.flip(1), cols)
    each = torch.arange(n, device=x.device)[:, None, None]
    picked = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
    return picked.contiguous() if x.is_contiguous() else picked


def our_arm(args: argparse.Namespace, *, fixed: bool = False, compiled: bool = False) -> Callable[[], None]:
    model = build(args.network)
    LoraC(args.rank, 2.0 * args.rank, "r").attach(model, torch_stream(0, "lora_c"))
    model.to(args.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    for _, norm in batch_norms(model):
        norm.train(not fixed)
    recipe = Recipe(lr=0.01, batch_size=args.batch, precision=args.precision)
    images, labels = photos()
    if compiled:
        model.compile()
    return lambda: none(train([model], [Task(images, labels, args.steps, stream(1, "turn"))], recipe=recipe))


def none(_: object) -> None:
    pass


def synchronised(turn: Callable[[], None], device: str) -> Callable[[], None]:
    def run() -> None:
        turn()
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6, help="steps a turn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    require(args.device)
    torch.set_num_threads(args.threads)
    head = header(args.device)
    arms = {
        "plain": plain_arm(args, torch.contiguous_format),
        "plain_channels_last": plain_arm(args, torch.channels_last),
        "batch": our_arm(args),
        "fixed": our_arm(args, fixed=True),
    }
    if args.compile:
        arms["batch_compiled"] = our_arm(args, compiled=True)
    deliver(
        measured({name: synchronised(arm, args.device) for name, arm in arms.items()}, args), head, as_json=args.json
    )


def measured(arms: dict[str, Callable[[], None]], args: argparse.Namespace) -> dict[str, Any]:
    started = {name: seconds_of(arm) for name, arm in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    until = time.perf_counter() + 300
    while len(times["plain"]) < args.repeats and time.perf_counter() < until:
        for name, arm in arms.items():
            times[name].append(seconds_of(arm))
    images = args.steps * args.batch
    ours = [name for name in arms if not name.startswith("plain")]
    found: dict[str, Any] = {
        "throughput_ratio": {name: median_ratio(times["plain"], times[name]) for name in ours},
        "throughput_ratio_to_channels_last": {
            name: median_ratio(times["plain_channels_last"], times[name]) for name in ours
        },
        "images_per_s": {name: images / statistics.median(each) for name, each in times.items()},
        "first_call_s": started,
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
    }
    say(found["images_per_s"], found["throughput_ratio"])
    return found


if __name__ == "__main__":
    main()
