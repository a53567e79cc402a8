"""No weight gradient is computed where nothing is trained: counted beneath autograd, alone and side by side."""

import copy
from typing import Any

import pytest
import torch
from dispatched import Convolutions
from named_adapters import named_adapter
from torch import nn

from fed_lorac.models import build
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.accuracy import batch_norms
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.entropy import Entropy
from fed_lorac.training.objectives.objective import Labels, Objective
from fed_lorac.training.recipe import Recipe, Task

CONVOLUTIONS = 9  # of a ResNet-8: the first, two in each of three blocks, and the shortcuts of two
LAST_STAGE = 3
METHODS: dict[str, tuple[str, dict[str, Any], int, int]] = {  # method, settings, gradients of weights, of inputs
    "norm-affine": ("norm-affine", {"train_first_conv": False}, 0, CONVOLUTIONS - 1),
    "norm-affine and the first convolution": ("norm-affine", {}, 1, CONVOLUTIONS - 1),
    "linear-probe": ("linear-probe", {}, 0, 0),
    "last stage": ("lora-c", {"layers": "layer3.*", "train_first_conv": False}, LAST_STAGE, 1),
    "last convolution": ("lora-c", {"layers": "layer3.0.conv2", "train_first_conv": False}, 1, 0),
    "lora-c": ("lora-c", {}, CONVOLUTIONS, CONVOLUTIONS - 1),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["batch", "batch, fixed", "group"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("objective", [Labels(), Entropy()], ids=["labels", "no labels"])
def test_only_what_is_trained_has_its_weight_gradient(method: str, norm: str, count: int, objective: Objective) -> None:
    name, settings, weights, inputs = METHODS[method]
    base, models = build("resnet8", width=4, norm=norm.partition(",")[0]), list[nn.Module]()
    adapter = named_adapter(name, **settings).fit_to(base)
    for _ in range(count):
        model = copy.deepcopy(base)
        adapter.attach(model, torch_stream(0, "A"))
        model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        for _, one in batch_norms(model):
            one.train("fixed" not in norm)
        models.append(model)
    images, labels = torch.zeros((4, 16, 16, 3), dtype=torch.uint8), torch.arange(4)
    with Convolutions() as seen:
        work = [Task(images, labels, 1, stream(k, "turn")) for k in range(count)]
        train(models, work, recipe=Recipe(batch_size=4, augment="none"), objective=objective)
    assert len(seen.forward) == CONVOLUTIONS
    assert sum(weight for _, (_, weight, _) in seen.backward) == weights
    assert sum(image for _, (image, _, _) in seen.backward) == inputs
