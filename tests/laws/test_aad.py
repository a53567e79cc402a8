"""Laws of the additive decomposition: linear, so that the mean of states is the mean of changes; equal at both ends."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_lorac.adapters.aad import AadConv2d, AdditiveDecomposition
from fed_lorac.adapters.adapter import trainable_parameters
from fed_lorac.adapters.algebra.factors import to_view, view_of
from fed_lorac.adapters.deltas import State, changed_names, dense_delta
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.errors import FactorError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream

ADAPTER = AdditiveDecomposition(2, 6.0, "r")
BASE = build("resnet8", width=4, generator=torch_stream(0, "model")).eval()
SHAPES = {name: p.shape for name, p in BASE.named_parameters()}
NUMBERS = st.floats(-3, 3, width=32)


def network() -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model")).eval()


def attached(adapter: AdditiveDecomposition = ADAPTER, seed: int = 0) -> nn.Module:
    model = network()
    adapter.attach(model, torch_stream(seed, "adapter"))
    return model


def branches(model: nn.Module) -> dict[str, AadConv2d]:
    return {name: m for name, m in model.named_modules() if isinstance(m, AadConv2d)}


EMPTY = ADAPTER.read(attached())


def state(seed: int) -> dict[str, Tensor]:
    draw = torch_stream(seed, "state")
    return {key: torch.randn(t.shape, generator=draw) for key, t in EMPTY.items()}


def summed(*terms: tuple[float, State]) -> dict[str, Tensor]:
    return {key: torch.stack([a * s[key].double() for a, s in terms]).sum(0).float() for key in EMPTY}


def changes(of: State, seed: int = 0) -> dict[str, Tensor]:
    """Every tensor's dense change, in float64."""
    found = ADAPTER.to_delta(BASE, torch_stream(seed, "adapter"))(of)
    wide = {key: t.double() for key, t in found.items()}
    return {name: dense_delta(wide, name, SHAPES[name], ADAPTER.scale) for name in changed_names(wide)}


def distance(one: State, other: State) -> float:
    """Frobenius, relative to the larger."""
    flat = [torch.cat([s[name].double().flatten() for name in sorted(s)]) for s in (one, other)]
    return float((flat[0] - flat[1]).norm() / max(float(flat[0].norm()), float(flat[1].norm()), 1e-30))


def test_a_delta_is_the_papers_sum_of_two_products() -> None:
    model, given_ = attached(), state(1)
    ADAPTER.load(model, given_)
    found = changes(given_)
    for name, layer in branches(model).items():
        L0, R0 = (layer.get_buffer(own).double() for own in ("L0", "R0"))
        expected = 3.0 * (L0 @ given_[f"{name}.R"].double() + given_[f"{name}.L"].double() @ R0)
        torch.testing.assert_close(to_view(found[f"{name}.weight"]), expected)
    assert set(found) == {f"{name}.weight" for name in branches(model)} | {"conv1.weight", "fc.weight"}


@given(NUMBERS, NUMBERS, st.integers(0, 99), st.integers(100, 199))
def test_a_delta_is_linear_in_the_state(a: float, b: float, x: int, y: int) -> None:
    found, one, other = changes(summed((a, state(x)), (b, state(y)))), changes(state(x)), changes(state(y))
    size = sum(float(t.norm()) for t in (*one.values(), *other.values()))
    for name in found:
        assert float((found[name] - a * one[name] - b * other[name]).norm()) < 1e-6 * size


@given(st.lists(st.tuples(st.integers(0, 99), st.floats(0.125, 1)), min_size=1, max_size=5))
def test_the_mean_of_states_is_the_mean_of_deltas(cameras: list[tuple[int, float]]) -> None:
    total = sum(weight for _, weight in cameras)
    terms = [(weight / total, state(seed)) for seed, weight in cameras]
    each = [(weight, changes(one)) for weight, one in terms]
    mean = {name: sum((weight * one[name] for weight, one in each), torch.zeros(())) for name in each[0][1]}
    assert distance(changes(summed(*terms)), mean) < 1e-6


def test_a_delta_has_twice_the_rank_of_its_parts() -> None:
    found = changes(state(1))
    for name in branches(attached()):
        view = view_of(SHAPES[f"{name}.weight"])
        assert int(torch.linalg.matrix_rank(to_view(found[f"{name}.weight"]))) == min(4, *view)


@pytest.mark.parametrize(
    ("model", "mode", "rank", "expected"),
    [
        ("resnet18", "r*k", 1, 73_280),
        ("resnet18", "auto", 4, 272_576),
        ("resnet18", "r", 16, 375_488),
        ("resnet50", "auto", 4, 278_720),
    ],
)
def test_as_many_parameters_as_lora_c_of_the_same_rank(model: str, mode: str, rank: int, expected: int) -> None:
    """L is as large as B and R as A: LoRA-C's own table (METHODS, section 1)."""
    ours, theirs = build(model), build(model)
    AdditiveDecomposition(rank, 1.0, mode).attach(ours, torch_stream(0, "adapter"))
    LoraC(rank, 1.0, mode).attach(theirs, torch_stream(0, "adapter"))
    assert trainable_parameters(ours) == trainable_parameters(theirs) == expected


def test_parameters_are_rows_and_columns_of_the_view_times_the_rank() -> None:
    alone = AdditiveDecomposition(3, 1.0, "r*k", train_first_conv=False, train_classifier=False)
    model = attached(alone)
    convs = [m for m in network().modules() if isinstance(m, nn.Conv2d)][1:]
    expected = sum(3 * k * k * (c.out_channels + c.in_channels) for c in convs for k in c.kernel_size[:1])
    assert trainable_parameters(model) == expected == sum(t.numel() for t in alone.read(model).values())


def test_both_ends_draw_the_same_frozen_bases() -> None:
    camera, server = attached(), ADAPTER.to_delta(BASE, torch_stream(0, "adapter"))(EMPTY)
    for name, layer in branches(camera).items():
        rows = layer.get_parameter("R").shape[0]
        assert torch.equal(server[f"{name}.A"][rows:], layer.get_buffer("R0"))
        assert torch.equal(server[f"{name}.B"][:, :rows], 3.0 * layer.get_buffer("L0"))
        assert not torch.equal(layer.get_buffer("R0"), branches(attached(seed=1))[name].get_buffer("R0"))
    assert distance(changes(state(1)), changes(state(1), seed=1)) > 0.1


def test_both_halves_learn_at_once_and_alike_whatever_the_shape() -> None:
    """For a gradient G of the weight without direction, L's and R's are equally large."""
    for out, in_ in ((64, 64), (256, 64), (64, 256)):
        model = nn.Sequential(nn.Conv2d(3, in_, 1), nn.Conv2d(in_, out, 3), nn.Flatten())
        AdditiveDecomposition(8, 8.0, "r", train_classifier=False).attach(model, torch_stream(0, "adapter"))
        layer = branches(model)["1"]
        L0, R0 = layer.get_buffer("L0"), layer.get_buffer("R0")
        G = torch.randn(layer.weight.shape, generator=torch_stream(0, "G"))
        layer.effective_weight(layer.own()).backward(G)  # type: ignore[no-untyped-call]
        dL, dR = layer.get_parameter("L").grad, layer.get_parameter("R").grad
        assert dL is not None and dR is not None
        torch.testing.assert_close(dL, to_view(G) @ R0.T)
        torch.testing.assert_close(dR, L0.T @ to_view(G))
        assert float(dL.norm() / dR.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("wrong", ["L alone", "another rank", "of another method"])
def test_a_state_that_does_not_fit_is_not_expanded(wrong: str) -> None:
    given_ = state(1)
    key = next(key for key in given_ if key.endswith(".R"))
    if wrong == "L alone":
        del given_[key]
    elif wrong == "another rank":
        given_ = AdditiveDecomposition(3, 6.0, "r").read(attached(AdditiveDecomposition(3, 6.0, "r")))
    else:
        given_ = {"conv1.weight": given_["conv1.weight"]}
    with pytest.raises(FactorError, match=r"for .*\.conv1' {'L'"):
        changes(given_)


def test_tensors_that_are_not_of_a_branch_pass_unchanged() -> None:
    extra = {**state(1), "bn1.running_mean": torch.ones(4)}
    found = ADAPTER.to_delta(BASE, torch_stream(0, "adapter"))(extra)
    assert all(found[key] is extra[key] for key in ("conv1.weight", "fc.weight", "bn1.running_mean"))
