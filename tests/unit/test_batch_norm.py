"""Laws of batches that leave batch norm one value a channel: refused at the start, where PyTorch would raise later."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import tiny
from torch import nn

from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.doctor import examine
from fed_lorac.models import build
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.training.accuracy import accuracy, batch_norms, reestimate_statistics
from fed_lorac.training.batch_norm import _lone, _smallest, check_cloud
from fed_lorac.training.batches import shuffled_batches

SMALL: dict[str, object] = {
    **{"model__name": "resnet18", "width": None, "data__image_size": 8, "local__batch_size": 15},
    **{"fleet__cameras": 2, "fleet__per_round": 2, "fleet__images": 16, "fleet__eval_images": 5, "run__rounds": 1},
}


def small(**changes: object) -> Config:
    return tiny(**SMALL | changes)


@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet18", 8), ("resnet18", 16), ("resnet8", 8), pytest.param("resnet50", 8, marks=pytest.mark.slow)],
)
def test_the_norm_that_is_named_is_one_that_pytorch_cannot_train_on_one_image(name: str, side: int) -> None:
    model = build(name)
    layer = _lone(model, side)
    model.train()
    images = torch.zeros(1, 3, side, side)
    if not layer:
        model(images)
        return
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(images)
    model.get_submodule(layer).eval()
    model(images.expand(2, -1, -1, -1))  # two images are enough


@given(count=st.integers(1, 60), size=st.integers(1, 20), steps=st.integers(0, 12))
def test_the_smallest_batch_is_that_which_training_draws(count: int, size: int, steps: int) -> None:
    epoch = [len(batch) for batch in shuffled_batches(count, size, np.random.default_rng(0))]
    drawn = [epoch[step % len(epoch)] for step in range(steps or len(epoch))]
    assert _smallest(count, size, steps) == min(drawn)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "a last batch": ({}, r"camera 0 has a batch of one image \(16 images, local.batch_size = 15\)"),
    "shared": ({"batch_norm__mode": "shared"}, r"Set local.batch_size = 14 or data.image_size = 16\.$"),
    "one each": ({"local__batch_size": 1}, r"local.batch_size = 1\), of which layer4.0.bn1 sees one value a channel"),
    "the whole pass that settles layers": (
        {"local__epochs": 0, "local__steps": 1, "adapter__layers": "auto"},
        r"camera 0 has a batch of one image \(16 images, local.batch_size = 15\)",
    ),
    "the whole pass that finds bases": (
        {"local__epochs": 0, "local__steps": 1, "adapter__method": "lora-xs", "bases": "gradient"},
        r"camera 0 has a batch of one image \(16 images, local.batch_size = 15\)",
    ),
    "one image": ({"fleet__images": 1, "batch_norm__mode": "frozen"}, r"takes them from one image \(1 image, "),
    "a window": (
        {"window": 1, "fleet__images": 20},
        r"one image \(20 images, batch_norm.local.window = 1\).*window = 2 or more",
    ),
}
TAKEN: dict[str, dict[str, object]] = {
    "fixed": {"training_statistics": "fixed"},
    "frozen": {"batch_norm__mode": "frozen"},
    "too few steps to come to it": {"local__epochs": 0, "local__steps": 1},
    "nothing is trained": {"strategy__name": "zero-byte"},
    "a network whose maps stay": {"model__name": "resnet8", "width": 4},
}


@pytest.mark.parametrize("kind", REFUSED)
def test_such_a_batch_is_refused_before_anything_starts(kind: str, tmp_path: Path) -> None:
    changes, told = REFUSED[kind]
    with pytest.raises(ConfigError, match=told):
        run(small(**changes), tmp_path / "run", Watch())
    assert not (tmp_path / "run").exists()
    assert "Batch norm takes its statistics" in examine(small(**changes)).failure


@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_right_is_not_refused(kind: str) -> None:
    build_experiment(small(**TAKEN[kind]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TAKEN)
def test_what_is_not_refused_runs(kind: str, tmp_path: Path) -> None:
    run(small(**TAKEN[kind]), tmp_path / "run", Watch())
    assert '"raised' not in (tmp_path / "run/rounds.jsonl").read_text()


@pytest.mark.parametrize("kind", ["a last batch", "shared", "a window", "the whole pass that settles layers"])
def test_every_remedy_is_one(kind: str) -> None:
    changes, _ = REFUSED[kind]
    with pytest.raises(ConfigError) as refused:
        build_experiment(small(**changes))
    remedies = re.findall(r'(\w+(?:\.\w+)+) = "?(\w+)"?', str(refused.value).partition("Set ")[2])
    assert len(remedies) >= 2
    for key, value in remedies:
        build_experiment(small(**changes | {key.replace(".", "__"): value}))


def test_a_bases_training_is_looked_at_too() -> None:
    model = build("resnet18")
    check_cloud(128, 128, 8, model)
    check_cloud(129, 128, 16, model)
    with pytest.raises(ConfigError, match=r"the cloud's last batch is one image \(129 images, 128 a batch\)"):
        check_cloud(129, 128, 8, model)


def of_one_size() -> nn.Module:
    """A network whose classifier takes images of one size alone."""
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten())
    return nn.Sequential(features, nn.Linear(256, 16), nn.BatchNorm1d(16), nn.Linear(16, 3))


def pooled() -> nn.Module:
    """A network with a norm that sees one value a channel at any size."""
    features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(features, nn.BatchNorm1d(4), nn.Linear(4, 3))


@pytest.mark.parametrize("network", [of_one_size, pooled])
def test_where_no_larger_image_helps_none_is_proposed(network: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match=r"Set another data\.cloud_share or one image more\.$"):
        check_cloud(33, 32, 8, network())


@pytest.mark.parametrize("look", ["scores", "statistics", "sizes"])
def test_a_look_at_a_network_leaves_every_modules_mode(look: str) -> None:
    network = of_one_size().train()
    network[2].eval()
    before = [module.training for module in network.modules()]
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    if look == "scores":
        accuracy(network, images, torch.zeros(2, dtype=torch.int64))
    elif look == "statistics":
        reestimate_statistics(network, images)
    else:
        _lone(network, 8)
    assert [module.training for module in network.modules()] == before


def test_a_look_that_fails_leaves_the_network_as_it_was() -> None:
    network = of_one_size().train()
    with pytest.raises(RuntimeError):
        reestimate_statistics(network, torch.zeros(2, 16, 16, 3, dtype=torch.uint8))
    assert all(norm.momentum == 0.1 for _, norm in batch_norms(network)) and network[2].training
