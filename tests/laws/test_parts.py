"""The laws that `fed_lorac.testing` holds anyone's own parts to hold for the built-in ones; and each of them bites."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from named_adapters import named_adapter
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.aggregation.aggregators import ClientDelta, weighted_mean
from fed_lorac.data.dataset import Images
from fed_lorac.registry import ADAPTERS, CODECS, CORRUPTIONS, MODELS, STRATEGIES
from fed_lorac.runtime.settings import setting
from fed_lorac.server.strategy import Proposal, ServerState, Strategy
from fed_lorac.testing import (
    check_adapter,
    check_codec,
    check_corruption,
    check_dataset,
    check_model,
    check_strategy,
)
from fed_lorac.wire.codecs.codecs import by_name


@pytest.mark.parametrize("method", ADAPTERS.names)
def test_built_in_adapters_keep_their_laws(method: str) -> None:
    check_adapter(named_adapter(method, rank=2))


@pytest.mark.parametrize("name", [name for name in STRATEGIES.names if STRATEGIES.load(name).sends])
def test_built_in_strategies_keep_their_laws(name: str) -> None:
    kind = STRATEGIES.load(name)
    adapters = (named_adapter(method, rank=2) for method in ADAPTERS.names)
    adapter = next(one for one in adapters if kind().refuses(one) is None)
    check_strategy(kind(), adapter)


@pytest.mark.parametrize("name", CODECS.names)
def test_built_in_codecs_keep_their_laws(name: str) -> None:
    check_codec(name)


@pytest.mark.parametrize("name", CORRUPTIONS.names)
def test_built_in_corruptions_keep_their_laws(name: str) -> None:
    check_corruption(name)


@pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet18"])
def test_built_in_models_keep_their_laws(name: str) -> None:
    assert MODELS.find(name) is not None
    check_model(name)


def test_the_bundled_digits_keep_the_laws_of_data_sets() -> None:
    check_dataset("digits")


class GainConv2d(AdaptedConv2d):
    """A gain for each filter, on a pattern that both ends draw."""

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        return own["gain"] * own["pattern"]


@dataclass(frozen=True)
class Gains(ConvAdapter):
    """Somebody's own, and sound."""

    source = "here"
    linear = True
    layer = GainConv2d
    start: float = setting(0.0, "where gains start")

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        pattern = torch.randn(1, *conv.weight.shape[1:], generator=generator)
        return Branch({"gain": torch.full((conv.out_channels, 1, 1, 1), self.start)}, {"pattern": pattern})


class SquaredConv2d(GainConv2d):
    """Not linear in its gain."""

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        return own["gain"].square() * own["pattern"]


@dataclass(frozen=True)
class Squares(Gains):
    """It says linear, and is not."""

    layer = SquaredConv2d


@dataclass(frozen=True)
class Careless(Gains):
    """It draws from PyTorch's global generator."""

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        return super().branch(name, conv, torch.default_generator)


@dataclass(frozen=True)
class Nameless(Gains):
    """It is from nowhere."""

    source = ""


@dataclass(frozen=True)
class Forgetful(Gains):
    """It leaves a tensor out of its states."""

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        return dict(list(super().read(model).items())[1:])


@dataclass(frozen=True)
class Lingering(Gains):
    """It begins a round with what the one before has trained."""

    def restart(self, model: nn.Module, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
        trained = self.read(model)
        super().restart(model, weights, generator)
        self.load(model, trained)


@pytest.mark.parametrize(
    ("adapter", "law"),
    [
        (Gains(start=0.5), "a fresh adapter must not change the network's outputs"),
        (Squares(), "linear says that the delta"),
        (Careless(), "attach must draw from its generator alone"),
        (Nameless(), "source must name"),
        (Forgetful(), "a state must hold every trained number"),
        (Lingering(), "restart must leave what attach leaves"),
    ],
    ids=repr,
)
def test_an_adapter_that_breaks_a_law_is_refused_with_the_law(adapter: Adapter, law: str) -> None:
    with pytest.raises(AssertionError, match=f"{type(adapter).__name__}: {law}"):
        check_adapter(adapter)


def test_a_sound_adapter_of_ones_own_passes() -> None:
    check_adapter(Gains())


@dataclass(frozen=True)
class Own(Strategy):
    """The mean goes down, dense; or something wrong."""

    source = "here"
    exact = True
    wrong: str = ""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        mean = weighted_mean(deltas)
        if self.wrong == "impure":
            server.notes["calls"]["made"] = 1 + server.notes["calls"].get("made", 0)  # type: ignore[index]
        if self.wrong == "not the mean":
            mean = {name: total.scaled(2.0) for name, total in mean.items()}
        update = {name: total.dense() for name, total in mean.items()}
        if self.wrong == "double":
            update = {name: tensor.double() for name, tensor in update.items()}
        return Proposal(update, exact=mean)

    def commit(self, server: ServerState, proposal: Proposal, decoded: Any) -> ServerState:
        state = super().commit(server, proposal, decoded)
        return replace(state, round=0) if self.wrong == "round" else state


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        ("not the mean", "exact says that"),
        ("double", "must be a finite float32 tensor"),
        ("round", "a state must have the round that it is of"),
    ],
)
def test_a_strategy_that_breaks_a_law_is_refused_with_the_law(wrong: str, law: str) -> None:
    check_strategy(Own())
    with pytest.raises(AssertionError, match=f"Own: .*{law}"):
        check_strategy(Own(wrong=wrong))


def test_a_codec_that_breaks_a_law_is_refused_with_the_law() -> None:
    int8 = by_name("int8")
    shrunk = replace(int8, name="shrunk", code=201, pack=lambda values, slot, rng: int8.pack(0.9 * values, slot, rng))
    with pytest.raises(AssertionError, match="shrunk: unbiased says"):
        check_codec(shrunk)
    with pytest.raises(AssertionError, match=r"int4: .* must come back within a relative error of 0.001"):
        check_codec("int4", error=0.001)


def drizzle(images: np.ndarray, severity: int, rng: np.random.Generator, *, wrong: str = "") -> np.ndarray:
    streaks = rng.random(images.shape[:3]) < 0.01 * severity
    if wrong == "global":
        streaks = np.random.random(images.shape[:3]) < 0.01 * severity  # noqa: NPY002
    found = np.where(streaks[..., None], 255, images)
    return found.astype(np.float32 if wrong == "dtype" else np.uint8)


@pytest.mark.parametrize(("wrong", "law"), [("global", "all randomness must come from"), ("dtype", "must be uint8")])
def test_a_corruption_that_breaks_a_law_is_refused_with_the_law(wrong: str, law: str) -> None:
    check_corruption(drizzle)
    with pytest.raises(AssertionError, match=f"drizzle: .*{law}"):
        check_corruption(drizzle, wrong=wrong)


def net(num_classes: int, *, wrong: str = "") -> nn.Module:
    norm = nn.BatchNorm2d(4, track_running_stats=wrong != "batch")
    layers = [nn.Conv2d(3, 4, 3, 2, 1, bias=False), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, num_classes + (wrong == "classes")))


@pytest.mark.parametrize(("wrong", "law"), [("classes", "logits must have the shape"), ("batch", "in evaluation")])
def test_a_model_that_breaks_a_law_is_refused_with_the_law(wrong: str, law: str) -> None:
    check_model(net)
    with pytest.raises(AssertionError, match=f"net: {law}"):
        check_model(net, wrong=wrong)


def stripes(root: object, image_size: int, *, count: int = 300, classes: int = 3) -> Images:
    labels = np.arange(count) % 3
    images = np.zeros((count, image_size, image_size, 3), np.uint8)
    images[:, ::2] = labels[:, None, None, None] + np.arange(count)[:, None, None, None] % 200
    return Images(images, labels, tuple(f"class {k}" for k in range(classes)))


@pytest.mark.parametrize(
    ("wrong", "law"), [({"classes": 2}, "labels must be"), ({"classes": 4}, "Every class must have an")]
)
def test_a_data_set_that_breaks_a_law_is_refused_with_the_law(wrong: dict[str, int], law: str) -> None:
    check_dataset(stripes)
    with pytest.raises(AssertionError, match=law):
        check_dataset(stripes, **wrong)
