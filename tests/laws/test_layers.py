"""Laws of `adapter.layers`: the layers that are named carry branches, and nothing else changes."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from fed_lorac.adapters.adapter import Adapter, trainable_parameters
from fed_lorac.adapters.branches import adapted_layers
from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.deltas import changed_names
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.registry import ADAPTERS
from fed_lorac.reporting.sizes import sizes
from fed_lorac.seeds import torch_stream
from fed_lorac.testing import check_adapter

BRANCHED = [name for name in ADAPTERS.names if issubclass(ADAPTERS.load(name), ConvAdapter)]
FIRST_STAGE = ("layer1.0.conv1", "layer1.0.conv2")


def plain() -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model")).double().eval()


def state_of(adapter: Adapter) -> tuple[nn.Module, dict[str, Any]]:
    model = plain()
    adapter.attach(model, torch_stream(0, "adapter"))
    return model, adapter.read(model)


@pytest.mark.parametrize("method", BRANCHED)
def test_an_adapter_on_some_layers_keeps_every_law(method: str) -> None:
    check_adapter(ADAPTERS.make(method, layers="layer1.*, layer3.0.conv?"))


@pytest.mark.parametrize("method", BRANCHED)
def test_the_layers_that_are_named_carry_branches_and_no_others(method: str) -> None:
    adapter = ADAPTERS.make(method, layers="layer1.*")
    model, state = state_of(adapter)
    assert tuple(adapted_layers(model)) == FIRST_STAGE
    beside = {"conv1.weight", "fc.weight"}
    delta = adapter.to_delta(plain(), torch_stream(0, "adapter"))(state)
    assert set(changed_names(delta)) == {f"{name}.weight" for name in FIRST_STAGE} | beside
    assert sum(t.numel() for t in state.values()) == trainable_parameters(model)


@pytest.mark.parametrize("method", BRANCHED)
def test_a_star_alone_is_all_layers(method: str) -> None:
    every, all_of_them = (state_of(ADAPTERS.make(method, layers=layers)) for layers in ("*", "all"))
    assert adapted_layers(every[0]).keys() == adapted_layers(all_of_them[0]).keys()
    assert all(every[1][name].equal(tensor) for name, tensor in all_of_them[1].items())


def test_the_order_of_patterns_does_not_matter_and_a_layer_named_twice_is_one() -> None:
    one, other = (
        ADAPTERS.make("lora-c", layers=text) for text in ("layer2.*, layer1.*", "layer[12].*, layer1.0.conv1")
    )
    assert (found := tuple(adapted_layers(state_of(one)[0]))) == tuple(adapted_layers(state_of(other)[0]))
    assert found[:2] == FIRST_STAGE


def test_a_pattern_that_names_no_layer_is_refused_with_the_layers_there_are() -> None:
    for wrong in ("conv1", "fc", "layer9.*", "layer1.*, layer2.0.convv1"):
        with pytest.raises(
            FactorError, match=r"names none here.*There are layer1\.0\.conv1, .*layer3\.0\.conv2"
        ) as raised:
            ADAPTERS.make("lora-c", layers=wrong).attach(plain(), torch_stream(0, "adapter"))
    assert "Did you mean 'layer2.0.conv1'?" in str(raised.value)


def test_only_a_run_lets_its_server_choose() -> None:
    with pytest.raises(FactorError, match=r"Only the server of a run chooses layers; name them here. There are layer1"):
        ADAPTERS.make("lora-c", layers="auto").fit_to(plain())


def test_a_frozen_basis_stays_on_the_same_layers() -> None:
    adapter = ADAPTERS.make("lora-c", layers="layer1.*").with_frozen_basis()
    assert tuple(adapted_layers(state_of(adapter)[0])) == FIRST_STAGE


def test_lower_ranks_stay_on_the_same_layers() -> None:
    adapter = ADAPTERS.make("lora-c", layers="layer1.*").fit_to(plain())
    assert tuple(adapted_layers(state_of(replace(adapter, rank=1))[0])) == FIRST_STAGE


def test_sizes_are_of_the_layers_that_are_named() -> None:
    first = sizes("resnet20", rank=4, rank_mode="r", layers="layer1.*")
    model = build("resnet20")
    adapter = ADAPTERS.make("lora-c", rank=4, rank_mode="r", layers="layer1.*")
    adapter.attach(copied := copy.deepcopy(model), torch_stream(0, "adapter"))
    assert first.trainable_parameters == trainable_parameters(copied) < sizes("resnet20", rank=4).trainable_parameters
    with pytest.raises(ConfigError, match="norm-affine has none"):
        sizes("resnet20", "norm-affine", layers="layer1.*")
