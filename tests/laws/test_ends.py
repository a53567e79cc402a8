"""The ends of a network: trained as they are, changed by a product of low rank, or left."""

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from named_adapters import named_adapter
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.deltas import dense_delta
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream
from fed_lorac.testing import check_adapter
from fed_lorac.testing.laws import moved

ENDS = ("conv1", "fc")
METHODS = {
    "norm-affine": {},
    "ffa-lora-c": {},
    "aad": {},
    "filter-atoms": {},
    "lora-xs": {},
    "vera-b": {},
    "subspace": {"dimension": 20},
    "mask": {},
    "lora-c": {},
    "lora-c kernel-wise": {"kernel_wise": True},
    "lorae": {},
    "conv-lora": {},
}


def network() -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model")).eval()


def made(method: str, **settings: Any) -> Any:
    return named_adapter(method.partition(" ")[0], **METHODS.get(method, {}), **settings)


def state_of(adapter: Adapter, model: nn.Module | None = None) -> dict[str, Tensor]:
    model = model or network()
    adapter.attach(model, torch_stream(0, "adapter"))
    return adapter.read(model)


@pytest.mark.parametrize("method", METHODS)
def test_every_adapter_keeps_its_laws_with_ends_of_low_rank(method: str) -> None:
    adapter = made(method, end_rank=2)
    check_adapter(adapter, network())
    assert adapter.linear == made(method).linear


def test_so_do_adapters_of_parts_and_factors_relative_to_their_start() -> None:
    check_adapter(LoraC(2, 4.0, end_rank=2).relative_to_init(), network())
    parts = Parts((NormAffine(train_classifier=False, end_rank=1), LoraC(2, 8.0, end_rank=3)), (1.0, 0.5))
    check_adapter(parts, network())
    shapes = {key: tuple(t.shape) for key, t in state_of(parts).items() if key.startswith(ENDS)}
    assert shapes == {"conv1.B": (4, 1), "fc.A": (3, 16), "fc.B": (10, 3)}


@pytest.mark.parametrize("method", ["norm-affine", "lora-xs", "lora-c"])
def test_an_ends_change_is_its_product(method: str) -> None:
    """The other route: NumPy in float64, A drawn by hand where it is frozen; LoRA-C's counts alpha / r times."""
    adapter, model = made(method, end_rank=2), network()
    adapter = adapter.fit_to(model)
    if method == "lora-xs":
        adapter = replace(adapter, layers="layer1.0.conv1").fit_to(model)  # with bases that are drawn from nothing
    attached = network().double()
    adapter.attach(attached, torch_stream(0, "adapter"))
    moved(attached)
    state, draw = adapter.read(attached), torch_stream(0, "adapter")
    said = adapter.to_delta(network(), torch_stream(0, "adapter"))(state)
    plain = dict(network().named_parameters())
    for name in ENDS:
        weight = plain[f"{name}.weight"]
        rows, cols = len(weight), weight[0].numel()
        if method == "lora-c":
            A, scale = state[f"{name}.A"].double().numpy(), 2.0
        else:
            A, scale = torch.randn(2, cols, generator=draw).double().numpy() / math.sqrt(cols), 1.0
        by_hand = scale * state[f"{name}.B"].double().numpy() @ A
        dense = dense_delta(said, f"{name}.weight", weight.shape, adapter.scale).double().numpy()
        merged = adapter.delta(attached)[f"{name}.weight"].numpy()
        for found in (dense, merged):
            assert np.abs(found.reshape(rows, cols) - by_hand).max() < 1e-6 * np.abs(by_hand).max()


@pytest.mark.parametrize(("rank", "numbers"), [(0, 1_072), (1, 26), (4, 104), (26, 676), (27, 702), (64, 1_072)])
def test_ends_of_low_rank_have_a_number_for_each_output_and_rank(rank: int, numbers: int) -> None:
    """Of ResNet-20, 16 x 27 and 10 x 64: as they are where B would be no smaller, both from rank 64 on."""
    model = build("resnet20", shortcut="identity")
    state = state_of(NormAffine(end_rank=rank), model)
    assert sum(tensor.numel() for tensor in state.values()) == 1_376 + numbers


def test_an_end_whose_product_is_no_smaller_is_trained_as_it_is() -> None:
    state = state_of(NormAffine(end_rank=27))
    assert "conv1.weight" in state and "fc.weight" in state
    shapes = {key: tuple(t.shape) for key, t in state_of(NormAffine(end_rank=15)).items() if key.startswith(ENDS)}
    assert shapes == {"conv1.B": (4, 15), "fc.B": (10, 15)}
    both = {key: tuple(t.shape) for key, t in state_of(LoraC(end_rank=3)).items() if key.startswith(ENDS)}
    assert both == {"conv1.A": (3, 27), "conv1.B": (4, 3), "fc.A": (3, 16), "fc.B": (10, 3)}
    assert "conv1.weight" in state_of(LoraC(end_rank=4))  # 4 x (27 + 4) numbers for 4 x 27


def test_what_is_left_stays_left() -> None:
    for own in ({"train_first_conv": False}, {"train_classifier": False}):
        assert {key.partition(".")[0] for key in state_of(made("lora-c", end_rank=1, **own))} >= {"layer1"}
        [left] = [end for end in ENDS if not any(key.startswith(end) for key in state_of(made("vera-b", **own)))]
        assert not any(key.startswith(left) for key in state_of(made("vera-b", end_rank=1, **own)))


def test_cameras_of_all_ranks_have_ends_of_one_rank() -> None:
    large, small = (made("lora-c", rank=rank, end_rank=2) for rank in (4, 1))
    fitted = cast(ConvAdapter, large.fit_to(network()))
    assert small.fit_like(fitted, network()).thin == fitted.thin == ENDS


def test_ends_move_in_the_subspace_or_by_low_rank() -> None:
    left = {"train_first_conv": False, "train_classifier": False}
    for wrong in ({"end_rank": 2}, {"ends_inside": True}):
        with pytest.raises(ConfigError, match=f"Subspace came with {next(iter(wrong))} = .*Remove it, or train an end"):
            made("subspace", **wrong, **left)
    with pytest.raises(ConfigError, match="ends_inside = true with end_rank = 2"):
        made("subspace", ends_inside=True, end_rank=2)


def test_an_end_that_can_carry_no_branch_is_refused() -> None:
    model = network()
    vars(model.get_submodule("fc"))["forward"] = lambda x: x[:, :10]
    with pytest.raises(FactorError, match="layer 'fc' has a forward of its own"):
        NormAffine(end_rank=1).attach(model, torch_stream(0, "adapter"))
    NormAffine().attach(model, torch_stream(0, "adapter"))
