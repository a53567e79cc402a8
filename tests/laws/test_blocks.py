"""A block gives each camera what it would have had alone."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from named_adapters import named_adapter
from networks import other_statistics
from second_routes import decayed_groups
from torch import Tensor, nn

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.errors import DataError, RunError
from fed_lorac.models import build
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.accuracy import batch_norms
from fed_lorac.training.blocks import block_size, why_apart
from fed_lorac.training.blocks.rule import shape_of_work
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.mixed import Mixed
from fed_lorac.training.objectives.pseudo_label import PseudoLabel
from fed_lorac.training.recipe import Recipe, Task

METHODS = {
    "lora-c r": named_adapter("lora-c", rank_mode="r"),
    "lora-c r*k": named_adapter("lora-c", rank_mode="r*k"),
    "lora-c kernel-wise": named_adapter("lora-c", kernel_wise=True),
    "aad": named_adapter("aad"),
    "filter-atoms m=6": named_adapter("filter-atoms", atoms=6),
    "filter-atoms m=12": named_adapter("filter-atoms", atoms=12),
    "filter-atoms m1=3": named_adapter("filter-atoms", m1=3),
    "lora-xs": named_adapter("lora-xs", lr_scale=0.5),
    "vera-b": named_adapter("vera-b", lr_scale=4.0),
    "subspace": named_adapter("subspace", dimension=50, lr_scale=4.0),
    "subspace, ends inside": named_adapter("subspace", dimension=50, lr_scale=4.0, ends_inside=True),
    "mask": named_adapter("mask", lr_scale=0.1),
    "atp": named_adapter("atp"),
    "atp, batches cut": named_adapter("atp", batch_images=3),
    "norm-affine, thin ends": named_adapter("norm-affine", end_rank=2),
    "lora-c r, thin ends": named_adapter("lora-c", rank_mode="r", end_rank=2),
    "full": named_adapter("full"),
}
RAGGED = [(7, 4), (8, 2), (5, 4), (9, 0), (3, 3)]  # images, steps: batches of 4 and a rest, some finish early
RECIPE = Recipe(lr=0.05, batch_size=4, clip_norm=0.5, weight_decay=5e-3)


def networks(
    method: str,
    count: int,
    *,
    norm: str = "batch",
    shortcut: str = "projection",
    fixed: bool = False,
    dtype: Any = torch.float64,
) -> list[nn.Module]:
    """Networks of different cameras: other statistics and classifiers, one frozen base. Where what is trained is how a
    network adapts to a batch, batch norm is fixed."""
    adapter = METHODS[method]
    base = build("resnet8", width=4, norm=norm, shortcut=shortcut, num_classes=3).to(dtype)
    made = []
    for k in range(count):
        model = copy.deepcopy(base)
        adapter.prepare(model)
        adapter.fit_to(base).attach(model, torch_stream(0, "A"))
        model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        draw = torch_stream(k, "camera")
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.05 * torch.randn(p.shape, generator=draw, dtype=dtype))
        other_statistics(model, draw, fixed=fixed or adapter.adapts_to_batch)
        made.append(model)
    return made


def tasks(sizes: Sequence[tuple[int, int]], first: int = 0) -> list[Task]:
    made = []
    for k, (count, steps) in enumerate(sizes, first):
        draw = stream(k, "images")
        images = torch.from_numpy(draw.integers(0, 256, (count, 8, 8, 3), np.uint8))
        made.append(Task(images, torch.from_numpy(draw.integers(0, 3, count)), steps, stream(k, "turn")))
    return made


def apart(models: Sequence[nn.Module], work: Sequence[Task], recipe: Recipe, **how: Any) -> list[Any]:
    return [train([m], [t], recipe=recipe, **how)[0] for m, t in zip(models, work, strict=True)]


def furthest(a: nn.Module, b: nn.Module) -> float:
    """The largest difference between two networks' parameters and statistics."""
    one, other = a.state_dict(), b.state_dict()
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


KINDS = list(product(["batch", "group"], ["projection", "identity"], [False, True]))
# One adapter on every kind of network; each other one on a kind and on that which differs in all from it.
EACH = [("lora-c r", *kind) for kind in KINDS] + [
    (method, *KINDS[kind]) for number, method in enumerate(METHODS) if number for kind in (number % 8, 7 - number % 8)
]


@pytest.mark.parametrize(("method", "norm", "shortcut", "fixed"), EACH)
def test_a_block_gives_each_camera_what_it_would_have_had_alone(
    method: str, norm: str, shortcut: str, fixed: bool
) -> None:
    kind: dict[str, Any] = {"norm": norm, "shortcut": shortcut, "fixed": fixed}
    together, alone = (networks(method, len(RAGGED), **kind) for _ in range(2))
    said = train(together, tasks(RAGGED), recipe=RECIPE)
    for one, other, a, b in zip(together, alone, said, apart(alone, tasks(RAGGED), RECIPE), strict=True):
        assert furthest(one, other) < 1e-10
        assert (a.images_seen, a.steps) == (b.images_seen, b.steps)
        assert a.mean_loss == pytest.approx(b.mean_loss, abs=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_in_float32_a_block_agrees_to_rounding(method: str) -> None:
    together, alone = (networks(method, 5, dtype=torch.float32) for _ in range(2))
    train(together, tasks(RAGGED), recipe=RECIPE)
    apart(alone, tasks(RAGGED), RECIPE)
    assert max(furthest(a, b) for a, b in zip(together, alone, strict=True)) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_same_block_twice_is_the_same_bit_for_bit(method: str) -> None:
    runs = [networks(method, 5, dtype=torch.float32) for _ in range(2)]
    said = [train(models, tasks(RAGGED), recipe=RECIPE) for models in runs]
    assert said[0] == said[1]
    for one, other in zip(*runs, strict=True):
        assert all(
            torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )


@settings(max_examples=8, deadline=None)
@given(
    st.permutations(range(4)),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=4, max_size=4),
)
def test_a_cameras_result_is_the_same_whichever_cameras_share_its_block(
    order: list[int], count: int, sizes: list[tuple[int, int]]
) -> None:
    if any(n % 4 == 1 for n, _ in sizes):
        sizes = [(n + 1 if n % 4 == 1 else n, s) for n, s in sizes]  # one image is no batch for a batch norm
    chosen = order[:count]
    models, alone = networks("lora-c r", 4), networks("lora-c r", 4)
    train([models[k] for k in chosen], [tasks(sizes)[k] for k in chosen], recipe=RECIPE)
    apart(alone, tasks(sizes), RECIPE)
    assert max(furthest(models[k], alone[k]) for k in chosen) < 1e-10


def test_a_camera_that_has_taken_its_steps_moves_no_more() -> None:
    models, before = networks("full", 3), networks("full", 3)
    train(models, tasks([(8, 0), (8, 3), (8, 1)]), recipe=RECIPE)
    assert furthest(models[0], before[0]) == 0.0
    assert furthest(models[2], before[2]) > 0.0
    assert [int(m.bn1.num_batches_tracked) for m in models] == [0, 3, 1]  # type: ignore[union-attr, arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("fixed", "precision"), [(False, "fp32"), (True, "bf16")])
@pytest.mark.parametrize("method", METHODS)
def test_a_camera_that_comes_to_nothing_takes_no_one_along(method: str, fixed: bool, precision: Any) -> None:
    """A network of NaN among others: their channels are neighbours in memory, and must not be in arithmetic."""
    well, ill = (networks(method, 5, fixed=fixed, dtype=torch.float32) for _ in range(2))
    cast(Any, ill[2]).conv1.weight.data.fill_(torch.nan)
    recipe = replace(RECIPE, precision=precision)
    train(well, tasks(RAGGED), recipe=recipe)
    train(ill, tasks(RAGGED), recipe=recipe)
    for k in (0, 1, 3, 4):
        assert furthest(well[k], ill[k]) == 0.0
    trained = [p for name, p in ill[2].named_parameters() if p.requires_grad and name != "conv1.weight"]
    assert all(bool(p.isnan().any()) for p in trained)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_under_bf16_a_block_repeats_bit_for_bit_and_agrees_to_its_rounding(method: str) -> None:
    recipe = replace(RECIPE, precision="bf16")
    together, again, alone = (networks(method, 5, dtype=torch.float32) for _ in range(3))
    train(together, tasks(RAGGED), recipe=recipe)
    train(again, tasks(RAGGED), recipe=recipe)
    apart(alone, tasks(RAGGED), recipe)
    assert max(furthest(a, b) for a, b in zip(together, again, strict=True)) == 0.0
    assert max(furthest(a, b) for a, b in zip(together, alone, strict=True)) < 0.1


def test_each_camera_is_clipped_by_its_own_norm() -> None:
    models, alone = networks("full", 2), networks("full", 2)
    for pair in (models, alone):
        cast(Any, pair[0]).fc.weight.data *= 1e4  # its gradients are huge
    recipe = Recipe(lr=0.01, batch_size=4, clip_norm=1.0)
    train(models, tasks([(8, 2), (8, 2)]), recipe=recipe)
    apart(alone, tasks([(8, 2), (8, 2)]), recipe)
    assert max(furthest(a, b) for a, b in zip(models, alone, strict=True)) < 1e-8


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, False)])
def test_a_step_of_each_camera_is_pytorchs_own(momentum: float, nesterov: bool) -> None:
    """The second route: torch.optim.SGD, clip_grad_norm_ and the plain network, batches cut by hand."""
    models, twins = networks("full", 2), networks("full", 2)
    recipe = Recipe(0.1, momentum, nesterov, weight_decay=0.1, clip_norm=0.7, batch_size=4, augment="none")
    train(models, tasks([(4, 3), (4, 3)]), recipe=recipe)
    for twin, task in zip(twins, tasks([(4, 3), (4, 3)]), strict=True):
        by_hand(twin, task, recipe)
    assert max(furthest(a, b) for a, b in zip(models, twins, strict=True)) < 1e-10


def by_hand(model: nn.Module, task: Task, recipe: Recipe) -> None:
    from fed_lorac.training.batches import to_input

    sgd = torch.optim.SGD(
        decayed_groups(model, recipe.weight_decay), recipe.lr, recipe.momentum, nesterov=recipe.nesterov
    )
    for _ in range(task.steps):
        order = torch.from_numpy(task.rng.permutation(len(task.labels)))
        sgd.zero_grad()
        nn.functional.cross_entropy(model(to_input(task.images[order]).double()), task.labels[order]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        sgd.step()


def test_learning_rates_follow_each_cameras_own_number_of_steps() -> None:
    models, alone = networks("lora-c r", 2), networks("lora-c r", 2)
    falling: Callable[[int, int], float] = lambda step, steps: 1 - step / steps  # noqa: E731
    train(models, tasks([(8, 2), (8, 5)]), recipe=RECIPE, lr_factor=falling)
    apart(alone, tasks([(8, 2), (8, 5)]), RECIPE, lr_factor=falling)
    assert max(furthest(a, b) for a, b in zip(models, alone, strict=True)) < 1e-10


def test_fixed_statistics_stay_and_folding_leaves_no_trace() -> None:
    models, before = networks("lora-c r", 2, fixed=True), networks("lora-c r", 2, fixed=True)
    train(models, tasks([(8, 2), (8, 2)]), recipe=RECIPE)
    train(models[:1], tasks([(8, 2)]), recipe=RECIPE)
    for model, old in zip(models, before, strict=True):
        for (_, norm), (_, was) in zip(batch_norms(model), batch_norms(old), strict=True):
            assert torch.equal(cast(Tensor, norm.running_var), cast(Tensor, was.running_var))
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_fixed_batch_norm_gives_the_gradients_it_gives_as_a_layer() -> None:
    folded, plain = (networks("full", 1, fixed=True)[0] for _ in range(2))
    recipe = Recipe(lr=0.1, batch_size=4, clip_norm=0.7, weight_decay=0.1, nesterov=True, augment="none")
    train([folded], tasks([(4, 3)]), recipe=recipe)
    by_hand(plain, tasks([(4, 3)])[0], recipe)
    assert furthest(folded, plain) < 1e-10


def test_a_blocks_networks_are_of_one_kind() -> None:
    models, work = networks("full", 2), tasks([(8, 1), (8, 1)])
    with pytest.raises(RunError, match="one task for each"):
        train(models, work[:1], recipe=RECIPE)
    with pytest.raises(RunError, match=r"number 1 differs.*conv1"):
        train([models[0], build("resnet8", width=8, num_classes=3).double()], work, recipe=RECIPE)
    models[1].get_parameter("fc.bias").requires_grad_(False)
    with pytest.raises(RunError, match=r"number 1 differs.*fc"):
        train(models, work, recipe=RECIPE)
    with pytest.raises(DataError, match="has none"):
        train(models[:1], tasks([(0, 2)]), recipe=RECIPE)


class Odd(nn.Module):
    """A layer with a parameter that nothing here can put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def test_networks_that_cannot_be_stacked_are_trained_one_at_a_time() -> None:
    make = [
        nn.Sequential(nn.Conv2d(3, 4, 3).double(), Odd(), nn.Flatten(), nn.Linear(144, 3).double()) for _ in range(2)
    ]
    twins = copy.deepcopy(make)
    assert "1, a Odd" in why_apart(make[0])
    train(make, tasks([(8, 2), (8, 3)]), recipe=RECIPE)
    apart(twins, tasks([(8, 2), (8, 3)]), RECIPE)
    assert all(furthest(a, b) == 0.0 for a, b in zip(make, twins, strict=True))


def test_torchvisions_networks_can_be_stacked() -> None:
    model = build("resnet18", num_classes=3)
    LoraC(1, 1.0).attach(model, torch_stream(0, "A"))
    assert why_apart(model) == ""
    assert why_apart(build("resnet50")) == ""


def test_the_size_of_a_block_is_a_rule_of_shapes() -> None:
    small, own, wide = build("resnet8", width=4), build("resnet8"), build("resnet18")
    for model, batch, precision, size in (
        (small, 15, "bf16", 8),
        (small, 15, "fp32", 8),
        (small, 50, "bf16", 4),
        (own, 15, "bf16", 4),
        (own, 15, "fp32", 1),
        (own, 50, "bf16", 1),
        (wide, 15, "bf16", 1),
    ):
        assert block_size(model, image_size=32, batch_size=batch, precision=precision) == size  # type: ignore[arg-type]
        attached = copy.deepcopy(model)
        LoraC().attach(attached, torch_stream(0, "A"))
        assert block_size(attached, image_size=32, batch_size=batch, precision=precision) == size  # type: ignore[arg-type]
    assert block_size(small, image_size=32, batch_size=10_000, precision="bf16") == 1
    for model, size in ((small, 8), (own, 1)):  # adapts to each batch in full precision, for the most part
        METHODS["atp"].prepare(model)
        assert block_size(model, image_size=32, batch_size=15, precision="bf16") == size
    assert block_size(own, image_size=32, batch_size=50, device="cuda:0") == 64
    assert block_size(Odd(), image_size=32, batch_size=1) == 1


def test_shapes_are_those_of_the_networks_own_forward() -> None:
    assert shape_of_work(build("resnet20"), 32) == (16 * 32 * 32, 16)
    assert shape_of_work(build("resnet50"), 32) == (256 * 32 * 32, 64)
    assert shape_of_work(nn.Flatten(), 8) == (3 * 8 * 8, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("method", METHODS)
def test_on_a_gpu_a_block_agrees_with_the_cpus(method: str) -> None:
    on_gpu, on_cpu = networks(method, 5), networks(method, 5)
    train([model.to("cuda") for model in on_gpu], tasks(RAGGED), recipe=RECIPE)
    apart(on_cpu, tasks(RAGGED), RECIPE)
    assert max(furthest(a.cpu(), b) for a, b in zip(on_gpu, on_cpu, strict=True)) < 1e-8


# Networks of one's own


class Scaled(nn.Module):
    """x * gain, where the gain is one number: a parameter of no axes, as normaliser-free networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def test_clipping_takes_a_parameter_of_one_number_into_the_norm() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), Scaled(), nn.Flatten(), nn.Linear(4, 3))
    [task], before = tasks([(4, 1)]), copy.deepcopy(model.double())
    train([model], [task], recipe=Recipe(lr=1.0, batch_size=4, clip_norm=1e-3, momentum=0.0, weight_decay=0.0))
    moved = [p.detach() - was.detach() for p, was in zip(model.parameters(), before.parameters(), strict=True)]
    assert moved[2].ndim == 0 and float(moved[2].abs())
    assert torch.linalg.vector_norm(torch.cat([part.flatten() for part in moved])) == pytest.approx(1e-3, rel=1e-2)


def test_a_layer_over_another_axis_than_features_is_told_to_train_alone() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Linear(8, 8), nn.Flatten(), nn.Linear(256, 3)).double()
    work = [(4, 1), (4, 1)]
    apart([copy.deepcopy(one) for _ in work], tasks(work), RECIPE)
    with pytest.raises(RunError, match=r"features on the last axis, 2 x 8; came .* Set run\.block_size = 1"):
        train([copy.deepcopy(one) for _ in work], tasks(work), recipe=RECIPE)


def test_a_block_counts_the_batches_of_every_forward_pass() -> None:
    """An objective that looks at two views of a batch moves the statistics twice a step."""
    objective = Mixed(rest=PseudoLabel(threshold=0.1, decay=0.5))
    together, alone = (networks("full", 3) for _ in range(2))
    train(together, tasks(RAGGED[:3]), recipe=RECIPE, objective=objective)
    apart(alone, tasks(RAGGED[:3]), RECIPE, objective=objective)
    counts = [[int(norm.num_batches_tracked) for _, norm in batch_norms(model)] for model in (*together, *alone)]  # type: ignore[arg-type]
    assert counts[:3] == counts[3:] and max(counts[0]) > RAGGED[0][1]
