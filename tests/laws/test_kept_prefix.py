"""Layers that no training touches are computed once a local update, and no bit of what is trained tells."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dispatched import Convolutions
from named_adapters import named_adapter
from networks import other_statistics
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.models import build
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.entropy_filtered import EntropyFiltered
from fed_lorac.training.objectives.objective import Labels, Objective
from fed_lorac.training.objectives.pseudo_label import PseudoLabel
from fed_lorac.training.prefix import Split, split
from fed_lorac.training.recipe import Recipe, Task

ADAPTED: dict[str, Callable[[], Adapter]] = {
    "last stage": lambda: named_adapter("lora-c", rank=1, layers="layer3.*", train_first_conv=False),
    "one convolution": lambda: named_adapter("lora-c", rank=1, layers="layer3.0.conv2", train_first_conv=False),
    "classifier": lambda: named_adapter("linear-probe"),
}
RAGGED = [(23, 14), (16, 8), (5, 4), (9, 0), (30, 12)]  # images, steps: batches of 8 and a rest, some finish early
EVEN = [(20, 12)] * 3
RECIPE = Recipe(lr=0.05, batch_size=8, augment="none")
WITHOUT = replace(RECIPE, kept_bytes=0)


def networks(adapted: str, count: int, *, norm: str = "batch", fixed: bool = True) -> list[nn.Module]:
    """Networks of different cameras: other statistics, one frozen base."""
    base, made = build("resnet8", width=8, norm=norm), []
    adapter = ADAPTED[adapted]().fit_to(base)
    for k in range(count):
        model, draw = copy.deepcopy(base), torch_stream(k, "camera")
        adapter.attach(model, torch_stream(0, "A"))
        model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        other_statistics(model, draw, fixed=fixed)
        made.append(model)
    return made


def tasks(sizes: Sequence[tuple[int, int]]) -> list[Task]:
    made = []
    for k, (count, steps) in enumerate(sizes):
        draw = stream(k, "images")
        images = torch.from_numpy(draw.integers(0, 256, (count, 16, 16, 3), np.uint8))
        made.append(Task(images, torch.from_numpy(draw.integers(0, 10, count)), steps, stream(k, "turn")))
    return made


def trained(
    models: Sequence[nn.Module], sizes: Sequence[tuple[int, int]], recipe: Recipe, objective: Objective | None = None
) -> tuple[list[dict[str, Tensor]], list[float], int]:
    """Copies of the models, trained: their tensors, mean losses, and how often images went through the first layer."""
    models = [copy.deepcopy(model) for model in models]
    with Convolutions() as seen:
        said = train(models, tasks(sizes), recipe=recipe, objective=objective or Labels())
    first = sum(channels in (3, 6, 9, 12, 15) for channels in seen.forward)  # others have multiples of 8, or 4
    return [dict(model.state_dict()) for model in models], [one.mean_loss for one in said], first


def identical(a: Sequence[dict[str, Tensor]], b: Sequence[dict[str, Tensor]]) -> bool:
    return all(
        torch.equal(tensor, other[name]) for one, other in zip(a, b, strict=True) for name, tensor in one.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("adapted", ADAPTED)
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("sizes", [EVEN, RAGGED, EVEN[:1]], ids=["even", "ragged", "alone"])
def test_no_bit_tells_that_a_prefix_was_kept(adapted: str, norm: str, precision: Any, sizes: Any) -> None:
    models = networks(adapted, len(sizes), norm=norm)
    kept, losses, often = trained(models, sizes, replace(RECIPE, precision=precision))
    whole, same_losses, always = trained(models, sizes, replace(WITHOUT, precision=precision))
    assert identical(kept, whole) and losses == same_losses
    assert often < always


def test_images_go_through_the_prefix_once_and_again_for_a_check_of_each_batch_size() -> None:
    models = networks("last stage", 3)
    _, _, often = trained(models, EVEN, RECIPE)
    _, _, always = trained(models, EVEN, WITHOUT)
    assert (often, always) == (3 + 2, 12)  # 20 images in batches of 8; of 8 and of 4


@pytest.mark.parametrize("objective", [EntropyFiltered(sharpness=0.05), PseudoLabel(threshold=0.1, decay=0.5)])
def test_nor_under_an_objective_without_labels(objective: Objective) -> None:
    models = networks("last stage", 3)
    kept, _, often = trained(models, EVEN, RECIPE, objective)
    whole, _, always = trained(models, EVEN, WITHOUT, objective)
    assert identical(kept, whole)
    assert often <= always  # views of one's own go through the whole network


def test_what_takes_more_than_it_may_is_not_kept_and_it_is_said_what_it_would_take(
    caplog: pytest.LogCaptureFixture,
) -> None:
    models = networks("last stage", 3)
    need = 60 * 16 * 8 * 8 * 4
    _, _, often = trained(models, EVEN, replace(RECIPE, kept_bytes=need))
    kept, _, always = trained(models, EVEN, replace(RECIPE, kept_bytes=need - 1))
    assert often < 12 < always == 13  # the first batch says how much it would be
    assert [record.args[2] for record in caplog.records if isinstance(record.args, tuple)] == [1]  # MiB
    assert identical(kept, trained(models, EVEN, WITHOUT)[0])


@pytest.mark.parametrize("change", [{"augment": "crop"}, {"batch_size": 20}])
def test_nothing_is_kept_where_images_change_or_are_seen_once(change: dict[str, Any]) -> None:
    models, sizes = networks("last stage", 2), [(20, 1)] * 2
    assert trained(models, sizes, replace(RECIPE, **change))[2] == 1


class Centred(nn.Module):
    """Looks at the other images of the batch, in a way that torch.fx follows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        y = self.conv2(y - y.mean(0))
        found: Tensor = self.fc(y.mean((2, 3)))
        return found


def test_a_network_that_looks_at_other_images_trains_as_ever() -> None:
    torch.manual_seed(0)
    model = Centred().requires_grad_(False)
    model.fc.requires_grad_()
    assert isinstance(split(model, model), Split)
    kept, _, often = trained([model], EVEN[:1], RECIPE)
    whole, _, always = trained([model], EVEN[:1], WITHOUT)
    assert identical(kept, whole)
    assert often == always + 3


# Where a network is split


class Skip(nn.Module):
    """A later layer reads what an early one gave."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3 if k == 0 else 4, 4, 3, padding=1) for k in range(3))

    def forward(self, x: Tensor) -> Tensor:
        early = self.a(x)
        found: Tensor = self.c(self.b(early)) + early
        return found


def test_the_cut_is_where_one_tensor_is_all_that_is_read_later() -> None:
    model = Skip()
    for layer in (model.a, model.b):
        layer.requires_grad_(False)
    found = split(model, model)
    assert isinstance(found, Split) and found.last == "a"
    x = torch.randn(2, 3, 8, 8, generator=torch_stream(0, "x"))
    assert torch.equal(found.after(found.before(x)), model(x))


class Odd(nn.Module):
    """A network with something between its first layer and a trained one."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), between
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(self.between(x)))
        return found


class Mine(nn.Conv2d):
    """A layer of one's own, whose state nobody knows."""


def refused() -> dict[str, tuple[nn.Module, str]]:
    hooked, mine = Odd(torch.relu), Odd(torch.relu)
    hooked.first.register_forward_hook(lambda layer, args, output: None)
    mine.first = Mine(3, 4, 1).requires_grad_(False)
    whole, batches = networks("last stage", 1)[0], networks("last stage", 1, fixed=False)[0]
    drops = Odd(nn.Dropout())
    return {
        "trained first": (whole.requires_grad_(), "its first layer is trained"),
        "batch statistics": (Odd(nn.BatchNorm2d(3, affine=False)), "between takes its statistics from each batch"),
        "only later": (batches, ""),
        "hooks": (hooked, "first, a Conv2d, has hooks"),
        "draws": (drops, "between draws"),
        "a function": (Odd(torch.nn.functional.dropout), "what dropout does is not known"),
        "a layer": (mine, "what first does, a Mine, is not known"),
        "control flow": (Odd(lambda x: x if x.sum() > 0 else -x), "torch.fx, which cannot trace"),
    }


@pytest.mark.parametrize("name", refused())
def test_a_network_without_a_prefix_says_why(name: str) -> None:
    model, why = refused()[name]
    found = split(model, model)
    if why:
        assert isinstance(found, str) and why in found
    else:
        assert isinstance(found, Split) and found.last == "conv1"
