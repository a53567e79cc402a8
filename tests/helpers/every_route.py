"""Every kind of convolution layer trains for a few steps, on few channels: run in a process of its own."""

import numpy as np
import torch
from named_adapters import named_adapter
from torch import nn

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.models import build
from fed_lorac.registry import ADAPTERS
from fed_lorac.runtime.precision import Precision
from fed_lorac.seeds import torch_stream
from fed_lorac.training.loop import train
from fed_lorac.training.recipe import Recipe, Task


def network() -> nn.Module:
    model = build("resnet8", width=4, generator=torch_stream(0, "model"))
    return model.to(memory_format=torch.channels_last).train()


def task(camera: int, steps: int) -> Task:
    draw = torch.Generator().manual_seed(camera)
    photos = torch.randint(0, 256, (12, 32, 32, 3), generator=draw, dtype=torch.uint8)
    return Task(photos, torch.randint(0, 10, (12,), generator=draw), steps, np.random.default_rng(camera))


def go(models: list[nn.Module], precision: Precision = "fp32") -> None:
    """Train them side by side, the first longest: in the end it is alone, on the layers of a block."""
    train(models, [task(k, 2 - k) for k in range(len(models))], recipe=Recipe(batch_size=6, precision=precision))


def adapted(method: str) -> nn.Module:
    model = network()
    adapter = named_adapter(method=method)
    adapter.prepare(model)
    if adapter.adapts_to_batch:
        model.eval()
    adapter.fit_to(model).attach(model, torch_stream(0, "adapter"))
    return model


def main() -> None:
    for threads in (2, 1):
        torch.set_num_threads(threads)
        go([network()])
        go([network()], "bf16")
    for method in sorted(ADAPTERS.names):
        go([adapted(method), adapted(method)])
    for route in ("dense", "two-step", "thin"):
        model = network()
        LoraC(rank=1, alpha=1.0, route=route).attach(model, torch_stream(0, "adapter"))  # type: ignore[arg-type]
        go([model])
        go([model], "bf16")


if __name__ == "__main__":
    main()
