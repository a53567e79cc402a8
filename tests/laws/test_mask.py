"""Laws of mask: probabilities that stay such, means that are weights, and full fine-tuning's learning rate."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import trainable_parameters
from fed_lorac.adapters.branches import adapted_layers
from fed_lorac.adapters.mask import Mask, MaskedConv2d
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream
from fed_lorac.testing import check_adapter
from fed_lorac.testing.laws import moved

ALONE: dict[str, Any] = {"train_first_conv": False, "train_classifier": False}


def network(**settings: Any) -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model"), **settings).eval()


def masked(adapter: Mask | None = None) -> tuple[Mask, nn.Module]:
    """The adapter, fitted, and a network in float64 that carries it."""
    fitted, model = (adapter or Mask(**ALONE)).fit_to(network().double()), network().double()
    fitted.attach(model, torch_stream(0, "adapter"))
    return fitted, model


def layers_of(model: nn.Module) -> dict[str, MaskedConv2d]:
    return cast(dict[str, MaskedConv2d], adapted_layers(model))


def probability(layer: MaskedConv2d, weight: Tensor) -> Tensor:
    """That a weight is dropped, of what its mean is."""
    return 1 - weight / layer.get_buffer("kept")


@pytest.mark.parametrize("dropped", [0.0, 0.1, 0.5])
def test_a_mask_keeps_the_laws_wherever_it_starts(dropped: float) -> None:
    check_adapter(Mask(dropped=dropped))
    check_adapter(Mask(**ALONE, layers="layer1.*", dropped=dropped))


def test_there_is_a_number_for_each_weight_and_a_bit_of_each_is_33_7_kilobytes_of_resnet20() -> None:
    model = build("resnet20")
    Mask(**ALONE).attach(model, torch_stream(0, "adapter"))
    assert trainable_parameters(model) == 269_824
    assert round(trainable_parameters(model) / 8 / 1_000, 1) == 33.7


def test_a_probability_that_is_no_such_is_refused() -> None:
    with pytest.raises(ConfigError, match="dropped"):
        Mask(dropped=1.0)


def test_a_weight_is_the_mean_of_one_that_may_be_dropped() -> None:
    """However far training went: before + p is from 0 to 1, and the weight from 0 to W / (1 - dropped)."""
    _, model = masked()
    moved(model, share=3.0)
    for layer in layers_of(model).values():
        kept, before, p = (layer.own()[name] for name in ("kept", "before", "p"))
        p = p / layer.get_buffer("unit")
        found = layer.effective_weight(layer.own()).detach()
        assert (found - kept * (1 - (before + p).clamp(0, 1))).abs().max() < 1e-12
        share = probability(layer, found)
        assert share.min() > -1e-12 and share.max() < 1 + 1e-12
        assert layer.read_own()["p"].abs().max() <= 1


def test_a_round_goes_on_from_the_probabilities_of_the_one_before() -> None:
    """Weights that were folded say what they are; p begins at zero, and their sum stays a probability."""
    adapter, model = masked()
    moved(model, share=0.02)
    folded = {name: p.detach() for name, p in adapter.merge(model).named_parameters()}
    adapter.restart(model, folded, torch_stream(9, "adapter"))
    for name, layer in layers_of(model).items():
        before = layer.get_buffer("before")
        assert (before - probability(layer, folded[f"{name}.weight"])).abs().max() < 1e-12
        assert (before - 0.1).abs().max() > 0.01 and not layer.get_parameter("p").any()
    moved(model, share=3.0)
    for layer in layers_of(model).values():
        share = probability(layer, layer.effective_weight(layer.own()).detach())
        assert share.min() > -1e-12 and share.max() < 1 + 1e-12


def test_what_was_driven_to_an_end_comes_back() -> None:
    """The gradient of p is the same beyond an end as before it."""
    _, model = masked(replace(Mask(**ALONE), dropped=0.0))
    layer = next(iter(layers_of(model).values()))
    p, g = layer.get_parameter("p"), torch.randn(layer.weight.shape, generator=torch_stream(0, "g")).double()
    for value in (-2.0, 0.0, 0.3, 1.0, 2.0):
        p.data.fill_(value)
        p.grad = None
        (layer.effective_weight(layer.own()) * g).sum().backward()
        assert p.grad is not None and torch.equal(p.grad, -layer.get_buffer("kept") * g / layer.get_buffer("unit"))


@pytest.mark.parametrize("lr_scale", [1.0, 4.0])
def test_a_step_in_the_weight_is_as_long_as_full_fine_tunings_in_the_mean(lr_scale: float) -> None:
    """Two routes: a step of SGD on what is trained; and one on the weight, kept^2 / mean(kept^2) times as long."""
    _, model = masked(Mask(**ALONE, lr_scale=lr_scale))
    for layer in layers_of(model).values():
        g = torch.randn(layer.weight.shape, generator=torch_stream(0, "g")).double() / 1e3
        p, kept = layer.get_parameter("p"), layer.get_buffer("kept")
        before = layer.effective_weight(layer.own())
        (before * g).sum().backward()
        assert p.grad is not None
        p.data -= 0.1 * p.grad
        step = before.detach() - layer.effective_weight(layer.own()).detach()
        assert (step - 0.1 * lr_scale * g * kept.square() / kept.square().mean()).abs().max() < 1e-10


def test_decay_clipping_and_a_pull_see_changes_of_the_weights_size() -> None:
    """A step's decay takes lr * decay of a change, whatever the weights; the gradient that is clipped is of the size of
    the weight's own."""
    _, model = masked()
    for layer in layers_of(model).values():
        kept, own = layer.get_buffer("kept"), layer.own()
        with torch.no_grad():
            layer.load_own({"p": torch.full_like(kept, 0.25, dtype=torch.float32)})
        change = layer.effective_weight(own) - layer.weight
        assert float(own["p"].norm() / change.norm()) == pytest.approx(1)
        layer.get_parameter("p").data *= 1 - 0.1 * 0.5
        assert (layer.read_own()["p"] - 0.25 * 0.95).abs().max() < 1e-6
        layer.get_parameter("p").grad = None
        layer.effective_weight(layer.own()).sum().backward()
        gradient = layer.get_parameter("p").grad
        assert gradient is not None and float(gradient.square().mean()) == pytest.approx(1)


def test_a_state_is_loaded_as_it_was_read() -> None:
    _, model = masked()
    moved(model, share=0.02)
    for layer in layers_of(model).values():
        read = layer.read_own()
        with torch.no_grad():
            layer.load_own(read)
        torch.testing.assert_close(layer.read_own()["p"], read["p"], rtol=1e-6, atol=0)


def test_states_are_of_probabilities_where_no_end_is_trained() -> None:
    assert Mask(**ALONE).of_probabilities
    assert not Mask().of_probabilities and not Mask(train_first_conv=False).of_probabilities
    assert not Parts((NormAffine(**ALONE), Mask(**ALONE))).of_probabilities


def test_a_layer_of_zeros_stays_such() -> None:
    model = network().double()
    model.get_parameter("layer1.0.conv1.weight").data.zero_()
    adapter = Mask(**ALONE).fit_to(model)
    adapter.attach(model, torch_stream(0, "adapter"))
    moved(model)
    assert not adapter.merge(model).get_parameter("layer1.0.conv1.weight").any()


def test_a_mask_fitted_to_one_network_is_refused_by_another() -> None:
    fitted = Mask().fit_to(network())
    with pytest.raises(FactorError, match=r"none of 'layer1\.0\.conv1' with the shape \(16, 16, 3, 3\)"):
        fitted.attach(build("resnet8"), torch_stream(0, "adapter"))
