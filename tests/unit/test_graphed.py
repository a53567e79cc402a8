"""A step that is recorded as one CUDA graph is the step that it records."""

import copy

import numpy as np
import pytest
import torch
from graphed import GraphedLabels

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.models import build
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.objective import Labels, Objective
from fed_lorac.training.recipe import Recipe, Task

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 3])
def test_a_recorded_step_trains_what_a_step_trains(count: int, device: str) -> None:
    network = build("resnet8", width=4)
    LoraC(rank_mode="r").attach(network, torch_stream(0, "lora_c"))
    network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]

    def trained(objective: Objective) -> list[torch.Tensor]:
        models = [copy.deepcopy(network) for _ in range(count)]
        draws = [stream(k, "bench") for k in range(count)]
        tasks = [
            Task(
                torch.from_numpy(draw.integers(0, 256, (10, 16, 16, 3), np.uint8)),
                torch.from_numpy(draw.integers(0, 10, 10)),
                6,
                draw,
            )
            for draw in draws
        ]
        train(models, tasks, recipe=Recipe(lr=0.01, batch_size=4), objective=objective)  # batches of 4, 4 and 2
        return [tensor for model in models for tensor in model.state_dict().values()]

    for ours, known in zip(trained(GraphedLabels()), trained(Labels()), strict=True):
        torch.testing.assert_close(
            ours, known, rtol=0 if device == "cpu" else 1e-4, atol=0 if device == "cpu" else 1e-5
        )
