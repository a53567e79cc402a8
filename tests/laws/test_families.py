"""Small networks of torchvision's families: adapted, trained side by side, folded and exported."""

import copy
from dataclasses import replace
from itertools import product
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest
import torch
from families import FAMILIES, family
from named_adapters import named_adapter
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.adapters.fold_bn import fold_batch_norm, folding_of
from fed_lorac.export.deployed import Deployed
from fed_lorac.export.formats import FORMATS
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.testing import check_adapter
from fed_lorac.training.accuracy import batch_norms
from fed_lorac.training.blocks import Stack, draws, why_apart
from fed_lorac.training.loop import train
from fed_lorac.training.prefix import Split, split
from fed_lorac.training.recipe import Recipe, Task

pytestmark = pytest.mark.slow

SETTINGS: dict[str, dict[str, Any]] = {
    "lora-c": {"rank": 1},
    "lorae": {},
    "conv-lora": {},
    "ffa-lora-c": {},
    "aad": {"rank": 1},
    "filter-atoms": {"kc": 0, "atoms": 6},
    "lora-xs": {},
    "vera-b": {},
    "subspace": {},
    "mask": {},
    "norm-affine": {},
    "atp": {},
    "linear-probe": {},
    "full": {},
}
SIDE = 32


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", SETTINGS)
def test_every_adapter_keeps_its_laws_on_every_family(method: str, name: str) -> None:
    model = family(name)
    if method == "norm-affine" and name == "squeezenet":
        pytest.skip("it has no norm")
    check_adapter(named_adapter(method, **SETTINGS[method]), model, image_size=SIDE)


def cameras(name: str, method: str, count: int, *, fixed: bool) -> list[nn.Module]:
    """Networks of different cameras over one base."""
    base, made = family(name).double(), []
    adapter = named_adapter(method, **SETTINGS[method]).fit_to(base)
    adapter.prepare(base)
    for k in range(count):
        model, draw = copy.deepcopy(base), torch_stream(k, "camera")
        adapter.attach(model, torch_stream(0, "A"))
        model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(0.02 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
            for _, norm in batch_norms(model):
                cast(Tensor, norm.running_var).uniform_(0.5, 2.0, generator=draw)
                norm.train(not fixed)
        made.append(model)
    return made


def tasks(steps: tuple[int, ...], first: int = 0) -> list[Task]:
    made = []
    for k, count in enumerate(steps, first):
        draw = stream(k, "images")
        size = 7 - k % 2  # batches of 4 and a rest, not the same for all
        images = torch.from_numpy(draw.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8))
        made.append(Task(images, torch.from_numpy(draw.integers(0, 3, size)), count, stream(k, "turn")))
    return made


def furthest(a: nn.Module, b: nn.Module) -> float:
    one, other = a.state_dict(), b.state_dict()
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


RECIPE = Recipe(lr=0.02, batch_size=4, clip_norm=0.5, weight_decay=5e-3)
STEPS = (2, 3, 1)


@pytest.mark.parametrize(
    ("method", "fixed"), [*product(["lora-c", "filter-atoms", "full"], [False, True]), ("atp", True)]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_three_cameras_side_by_side_are_what_each_is_alone(name: str, method: str, fixed: bool) -> None:
    together, alone = (cameras(name, method, 3, fixed=fixed) for _ in range(2))
    before = copy.deepcopy(together[0])
    assert why_apart(together[0]) == ""
    train(together, tasks(STEPS), recipe=RECIPE)
    for model, task in zip(alone, tasks(STEPS), strict=True):
        train([model], [task], recipe=RECIPE)
    assert furthest(together[0], before) > 1e-6
    assert max(furthest(a, b) for a, b in zip(together, alone, strict=True)) < 1e-9


@pytest.mark.parametrize("name", [name for name in FAMILIES if any(map(draws, family(name).modules()))])
def test_dropout_and_its_like_stay_off_and_nothing_is_drawn_from_the_global_generator(name: str) -> None:
    models = [cameras(name, "full", 1, fixed=True)[0] for _ in range(2)]
    modes = [module.training for module in models[0].modules()]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        train([model], tasks((2,)), recipe=RECIPE)
        assert torch.equal(torch.random.get_rng_state(), state)
    assert furthest(*models) == 0.0
    assert [module.training for module in models[0].modules()] == modes


@pytest.mark.parametrize("method", ["lora-c", "linear-probe"])
@pytest.mark.parametrize("name", FAMILIES)
def test_side_by_side_a_kept_prefix_is_each_cameras_own_though_steps_and_batches_differ(name: str, method: str) -> None:
    """Few take part in a step, and fewer go on: what was noted of a whole block must not hold for a part of it."""
    together, alone = (cameras(name, method, 3, fixed=True) for _ in range(2))
    for model in (*together, *alone):
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        for own in first.parameters():
            own.requires_grad_(False)
    recipe = replace(RECIPE, augment="none")
    losses = [one.mean_loss for one in train(together, tasks(STEPS), recipe=recipe)]
    for place, (model, task) in enumerate(zip(alone, tasks(STEPS), strict=True)):
        [found] = train([model], [task], recipe=replace(recipe, kept_bytes=0))
        assert abs(found.mean_loss - losses[place]) < 1e-9
    assert max(furthest(a, b) for a, b in zip(together, alone, strict=True)) < 1e-9


@pytest.mark.parametrize("name", FAMILIES)
def test_folding_batch_norm_leaves_the_answers_as_they_are(name: str) -> None:
    model = family(name).double()
    found, folded = folding_of(model), fold_batch_norm(model)
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch_stream(0, "x"), dtype=torch.float64)
    assert (folded(x) - model(x)).abs().max() < 1e-10
    left = sum(isinstance(module, _BatchNorm) for module in folded.modules())
    assert left == len(found.kept) == sum(1 for _ in batch_norms(model)) - len(found.folded)
    assert (left == 0) == (name != "densenet")  # there norms come first


@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_computes_what_an_adapted_and_merged_network_does(name: str) -> None:
    pytest.importorskip("onnxscript")
    model = family(name)
    adapter = named_adapter("lora-c", rank=1)
    adapter.attach(model, torch_stream(0, "A"))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=torch_stream(1, "moved")))
    deployed = Deployed.of(adapter.merge(model), fold=True)
    session = onnxruntime.InferenceSession(
        FORMATS["onnx"].encode(deployed, SIDE, {}), providers=["CPUExecutionProvider"]
    )
    x = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=torch_stream(0, "pixels")).float()
    with torch.no_grad():
        expected = model.eval()((x - deployed.mean) / deployed.std)
    off = torch.from_numpy(np.asarray(session.run(None, {"images": x.numpy()})[0])) - expected
    assert float(off.abs().max()) < 1e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_is_its_untouched_prefix_and_then_the_rest_alone_and_side_by_side(name: str) -> None:
    model = family(name)
    named_adapter("linear-probe").attach(model, torch_stream(0, "A"))
    model.eval()
    for n, network in ((1, model), (2, Stack([model, copy.deepcopy(model)]).network)):
        found = split(network, model)
        assert isinstance(found, Split) and found.last != next(iter(dict(model.named_parameters()))).rpartition(".")[0]
        x = torch.randn(3, 3 * n, SIDE, SIDE, generator=torch_stream(n, "x"))
        kept = found.before(x)
        assert torch.equal(found.after(kept), network(x))
        assert not kept.requires_grad and found.after(kept).requires_grad
