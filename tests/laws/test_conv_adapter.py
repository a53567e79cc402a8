"""Laws of every branch, held by the plainest one: a gain on each weight, times a frozen pattern."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import trainable_parameters
from fed_lorac.adapters.branches import remove_branch
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.adapters.deltas import changed_names
from fed_lorac.adapters.fold_bn import fixed_norms_folded
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import torch_stream


class GainConv2d(AdaptedConv2d):
    strength: float

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        return self.strength * own["gain"] * own["pattern"]


@dataclass(frozen=True)
class Gains(ConvAdapter):
    layer = GainConv2d
    linear = True
    only: str = ""
    strength: float = setting(0.5, "what each gain is multiplied by", above=0)

    def convolutions(self, model: nn.Module) -> tuple[str, ...]:
        return tuple(name for name in super().convolutions(model) if self.only in name)

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        pattern = torch.randn(conv.weight.shape[1:], generator=generator)
        gain = torch.zeros(conv.out_channels, 1, 1, 1)
        return Branch({"gain": gain}, {"pattern": pattern}, {"strength": self.strength})


def plain() -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model")).eval()


def attached(**settings: Any) -> tuple[nn.Module, Gains]:
    model, adapter = plain(), Gains(**settings)
    adapter.attach(model, torch_stream(0, "adapter"))
    return model, adapter


def moved(model: nn.Module) -> nn.Module:
    draw = torch_stream(1, "moved")
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=draw)
    return model


def branches(model: nn.Module) -> dict[str, GainConv2d]:
    return {name: m for name, m in model.named_modules() if isinstance(m, GainConv2d)}


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch_stream(0, "images"))


def test_every_convolution_but_the_first_carries_a_branch_and_nothing_else_is_trained() -> None:
    model, adapter = attached()
    convs = [name for name, m in plain().named_modules() if isinstance(m, nn.Conv2d)]
    assert list(branches(model)) == convs[1:]
    expected = {f"{name}.gain" for name in convs[1:]} | {f"{convs[0]}.weight", "fc.weight"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected == set(adapter.read(model))


def test_a_method_may_choose_its_convolutions() -> None:
    model, adapter = attached(only="conv2", train_first_conv=False, train_classifier=False)
    assert set(adapter.read(model)) == {f"{name}.gain" for name in branches(model)}
    assert all("conv2" in name for name in branches(model))
    assert trainable_parameters(model) == sum(m.out_channels for m in branches(model).values())


def test_a_branch_is_a_convolution_by_the_sum_of_weight_and_delta() -> None:
    model, twin = moved(attached()[0]), plain()
    for name, layer in branches(model).items():
        twin.get_parameter(f"{name}.weight").data += 0.5 * layer.get_parameter("gain") * layer.get_buffer("pattern")
    for name in ("conv1.weight", "fc.weight"):
        twin.get_parameter(name).data = model.get_parameter(name).data
    torch.testing.assert_close(model(images()), twin(images()))


def test_a_convolution_without_its_branch_is_the_plain_one_it_was() -> None:
    model = moved(attached(train_first_conv=False, train_classifier=False)[0])
    layers = branches(model)
    keys = {id(layer): set(vars(layer)) for layer in layers.values()}
    for layer in layers.values():
        remove_branch(layer)
    assert not branches(model)
    assert model.state_dict().keys() == plain().state_dict().keys()
    assert torch.equal(model(images()), plain()(images()))
    for name, layer in layers.items():
        left = keys[id(layer)] - {"branch_trained", "branch_frozen", "branch_settings", "strength"}
        assert set(vars(layer)) == left == set(vars(plain().get_submodule(name)))


def test_a_frozen_tensor_is_not_saved_and_follows_the_network_to_its_device() -> None:
    model = attached()[0]
    assert not any("pattern" in name for name in model.state_dict())
    twin = copy.deepcopy(model).double()
    for name, layer in branches(twin).items():
        pattern = layer.get_buffer("pattern")
        assert pattern.dtype == torch.float64
        assert torch.equal(pattern.float(), branches(model)[name].get_buffer("pattern"))


@pytest.mark.parametrize("wrong", ["missing", "unknown", "shape", "dense shape"])
def test_a_state_that_does_not_fit_is_refused_before_anything_moves(wrong: str) -> None:
    model, adapter = attached()
    state = dict(adapter.read(moved(attached()[0])))
    first = next(key for key in state if key.endswith(".gain"))
    if wrong == "missing":
        del state[first]
    elif wrong == "unknown":
        state["layer9.conv1.gain"] = state[first]
    else:
        key = first if wrong == "shape" else "fc.weight"
        state[key] = state[key][:1]  # would broadcast
    before = adapter.read(model)
    with pytest.raises(FactorError):
        adapter.load(model, state)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), adapter.read(model).values(), strict=True))


def test_a_network_that_cannot_carry_a_branch_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3), nn.Flatten())
    with pytest.raises(FactorError, match="ConvTranspose2d"):
        Gains(train_classifier=False).attach(model, torch_stream(0, "adapter"))
    assert all(type(m) is not GainConv2d for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("convs", [0, 1])
def test_a_network_without_a_place_for_a_branch_is_told_what_needs_none(convs: int) -> None:
    model = nn.Sequential(*[nn.Conv2d(3, 3, 3) for _ in range(convs)], nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(FactorError, match="Choose norm-affine, linear-probe or full, which need none"):
        Gains().attach(model, torch_stream(0, "adapter"))


def test_a_network_carries_one_adapter_at_a_time() -> None:
    model, adapter = attached()
    with pytest.raises(FactorError, match="GainConv2d"):
        adapter.attach(model, torch_stream(0, "adapter"))


def test_a_delta_is_computed_in_full_precision_under_autocast() -> None:
    layer = next(iter(branches(moved(attached()[0])).values()))
    own = layer.own()
    with torch.autocast("cpu", torch.bfloat16):
        under = layer.effective_weight(own)
        said = layer(torch.randn(1, layer.in_channels, 8, 8, generator=torch_stream(0, "x")))
    assert torch.equal(under, layer.effective_weight(own)) and under.dtype == torch.float32
    assert said.dtype == torch.bfloat16


def test_settings_are_shown_as_equals_are_known_by_them() -> None:
    said = next(iter(branches(attached()[0]).values())).extra_repr()
    assert "kernel_size=(3, 3)" in said and "gain=(4, 1, 1, 1)" in said and "strength=0.5" in said


def test_both_ends_know_what_a_state_says() -> None:
    model, adapter = attached()
    state = adapter.read(moved(model))
    said = adapter.to_delta(plain(), torch_stream(0, "adapter"))(state)
    found = adapter.delta(model)
    assert said.keys() == found.keys() == set(changed_names(said))
    for name, delta in found.items():
        torch.testing.assert_close(said[name], delta, atol=1e-6, rtol=0)
    key = next(key for key in state if key.endswith(".gain"))
    with pytest.raises(FactorError, match=r"'gain': \(4, 1, 1, 1\)}; came {'gain': \(1, 1, 1, 1\)}"):
        adapter.to_delta(plain(), torch_stream(0, "adapter"))({**state, key: state[key][:1]})


def test_a_delta_hangs_on_the_weights_shape_alone() -> None:
    """Cameras hold the global model and the server the starting base: their weights differ."""
    model, other = attached()[0], plain()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(3.0)
    adapter = Gains()
    state, draw = adapter.read(moved(model)), lambda: torch_stream(0, "adapter")
    one, same = (adapter.to_delta(base, draw())(state) for base in (plain(), other))
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_a_setting_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="strength must be a finite number, above 0"):
        Gains(strength=-1.0)


def test_a_fixed_batch_norm_is_folded_into_a_convolution_with_a_branch() -> None:
    model = moved(attached()[0])
    expected = model(images())
    with fixed_norms_folded(model, model):
        assert all("forward" in vars(layer) for layer in branches(model).values())
        torch.testing.assert_close(model(images()), expected, atol=1e-5, rtol=1e-5)
