"""Laws of bases that a server finds of gradients: those of the mean, told and taken over as they are."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fed_lorac.adapters.bases import FoundBases, state_of
from fed_lorac.adapters.lora_xs import LoraXs
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.adapters.settled import NOTHING, Settled, settled_in, settled_state, without_settled
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream
from fed_lorac.testing import check_adapter
from fed_lorac.training.batches import to_input
from fed_lorac.training.gradients import mean_gradients
from fed_lorac.training.objectives.objective import Labels
from fed_lorac.training.recipe import Recipe, Task

ALONE: dict[str, Any] = {"train_first_conv": False, "train_classifier": False}
LAYERS = ("layer1.0.conv2", "layer3.0.conv1")


def network() -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model")).eval()


def found(adapter: LoraXs | Parts) -> FoundBases:
    """As a server has them, once they were told."""
    model, fitted = network(), adapter.fit_to(network())
    names = fitted.gradients_wanted(model)
    draw = torch_stream(1, "gradients")
    gradients = {n: torch.randn(model.get_parameter(f"{n}.weight").shape, generator=draw) for n in names}
    bases = FoundBases.told(state_of(fitted.bases_of(gradients)))
    assert bases is not None and len(names) == 8
    return bases


def test_gradients_are_those_of_the_whole_data() -> None:
    """By autograd on all images at once, in float64; 25 images in batches of 10 count each alike."""
    images = torch.randint(0, 256, (25, 8, 8, 3), generator=torch_stream(0, "images"), dtype=torch.uint8)
    labels, exact = torch.arange(25) % 10, network().double()
    weights = [exact.get_parameter(f"{name}.weight") for name in LAYERS]
    loss = F.cross_entropy(exact(to_input(images, torch.device("cpu")).double()), labels)
    expected = torch.autograd.grad(loss, weights)
    task = Task(images, labels, 3, np.random.default_rng(0))
    told, mean = mean_gradients(
        network(), LAYERS, task, recipe=Recipe(batch_size=10, augment="none"), objective=Labels()
    )
    assert tuple(told) == LAYERS and mean == pytest.approx(float(loss.detach()), rel=1e-5)
    for gradient, own in zip(told.values(), expected, strict=True):
        torch.testing.assert_close(gradient, own.float(), rtol=1e-4, atol=1e-7)


def test_bases_span_the_leading_singular_vectors_of_a_gradient() -> None:
    """The other route: NumPy's SVD, of a gradient whose fifth singular value is a fifth of its fourth."""
    draw = np.random.default_rng(0)
    left, right = (np.linalg.qr(draw.normal(size=(n, n)))[0] for n in (48, 48))
    values = np.array([10, 9, 8, 7, *np.linspace(1.4, 0.1, 44)])
    gradient = torch.from_numpy(left * values @ right.T * 1e-6).reshape(16, 16, 3, 3)
    adapter = LoraXs(rank=4, bases="gradient")
    U, V = (basis.double().numpy() for basis in adapter.bases_of({"conv": gradient})["conv"])
    assert np.abs(U @ U.T - left[:, :4] @ left[:, :4].T).max() < 1e-6
    assert np.abs(V.T @ V - right[:, :4] @ right[:, :4].T).max() < 1e-6


@pytest.mark.parametrize("parts", [False, True])
def test_an_adapter_between_found_bases_keeps_the_laws(parts: bool) -> None:
    core = LoraXs(rank=3, bases="gradient", end_rank=2)
    adapter = Parts((NormAffine(**ALONE), core)) if parts else core
    bases = found(adapter)
    settled = adapter.with_bases(bases.of)
    check_adapter(settled, network())
    assert settled.linear and settled.finds_bases
    for name, layer in attached(settled).named_modules():
        if name in bases.of:
            assert torch.equal(layer.get_buffer("U"), bases.of[name].U)
            assert torch.equal(layer.get_buffer("V"), bases.of[name].V)


def attached(adapter: LoraXs | Parts) -> nn.Module:
    model = network()
    adapter.attach(model, torch_stream(0, "adapter"))
    return model


def test_until_bases_are_found_states_have_their_shapes() -> None:
    adapter = LoraXs(rank=3, bases="gradient")
    before, after = (one.read(attached(one)) for one in (adapter, adapter.with_bases(found(adapter).of)))
    assert {k: t.shape for k, t in before.items()} == {k: t.shape for k, t in after.items()}
    weight = LoraXs(rank=3)
    assert weight.gradients_wanted(network()) == () and weight.with_bases(found(adapter).of) is weight


def test_bases_of_another_network_are_refused() -> None:
    adapter = LoraXs(rank=3, bases="gradient")
    with pytest.raises(FactorError, match=r"none of 'layer1\.0\.conv1' with a view of 48 x 48"):
        adapter.with_bases(found(adapter).of).attach(build("resnet8"), torch_stream(0, "adapter"))


def test_what_is_settled_is_told_and_taken_apart_from_the_rest() -> None:
    bases = found(LoraXs(rank=2, bases="gradient"))
    rest = {"conv1.weight": torch.ones(2)}
    for settled in (Settled(bases=bases), Settled(layers=LAYERS[:1]), Settled(LAYERS, bases)):
        state: dict[str, Tensor] = {**rest, **settled_state(settled, LAYERS)}
        assert settled_in(state, LAYERS) == settled and without_settled(state) == rest
        assert hash(settled_in(state, LAYERS)) == hash(settled)
    assert settled_in(rest, LAYERS) == NOTHING
    first, *_ = bases.of
    moved = {**bases.state(), f"{first}.basis_U": bases.of[first].U + 1}
    assert FoundBases.told(moved) != bases


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"strategy.name": "rotating-basis"}, "draws bases anew"),
        ({"strategy.name": "zeroth-order"}, "they take none"),
        ({"strategy.name": "local-only"}, "they send nothing"),
        ({"strategy.name": "fedavg", "adapter.layers": "auto"}, "which has that round"),
    ],
)
def test_where_no_bases_can_be_found_gradient_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config.from_flat({"adapter.method": "lora-xs", "adapter.lora-xs.bases": "gradient", **changes})
