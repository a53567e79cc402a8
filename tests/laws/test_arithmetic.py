"""Laws of the server's arithmetic: means, stacks, what goes down."""

import math
import weakref
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from cameras import SHAPES, VIEW, float64_mean, off, said_by, state
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_lorac.aggregation import delta_sum as arithmetic
from fed_lorac.aggregation.aggregators import DeltaMean, TensorMean
from fed_lorac.aggregation.delta_sum import (
    DeltaSum,
    State,
    compressed,
    relative_distance,
    sum_states,
)
from fed_lorac.errors import FactorError


def fleet(cameras: int, rank: int = 2) -> list[tuple[State, float]]:
    examples = [100.0 + 37 * camera for camera in range(cameras)]
    return [(state(camera, rank), n / sum(examples)) for camera, n in enumerate(examples)]


@settings(max_examples=25, deadline=None)
@given(cameras=st.integers(1, 12), rank=st.integers(1, 5), scale=st.sampled_from([0.5, 1.0, 2.0, 3.7]))
def test_the_mean_is_that_of_float64_by_another_route(cameras: int, rank: int, scale: float):
    states = fleet(cameras, rank)
    expected = float64_mean(states, scale)
    found = sum_states(states, SHAPES, scale)
    assert off({name: total.dense().numpy() for name, total in found.items()}, expected) < 1e-6


def test_one_camera_of_weight_one_is_the_identity():
    [(only, _)] = fleet(1)
    found = sum_states([(only, 1.0)], SHAPES, 2.0)
    A, B = found["conv.weight"].factors() or pytest.fail("it is a stack of one")
    assert torch.equal(A, only["conv.A"]) and torch.equal(B, 2.0 * only["conv.B"])
    assert torch.equal(found["fc.weight"].dense(), only["fc.weight"])


@pytest.mark.parametrize("cameras", [2, 3, 12])
def test_equal_cameras_are_a_fixed_point(cameras: int):
    one = state(7)
    found = sum_states([(one, 1 / cameras)] * cameras, SHAPES, 1.0)
    alone = sum_states([(one, 1.0)], SHAPES, 1.0)
    assert relative_distance(found, alone) < 1e-6


def apart(states: Iterable[tuple[State, float]]) -> State:
    """The mean of every tensor for itself, A and B too."""
    mean = TensorMean()
    for one in said_by(states):
        mean.add(one)
    return {key: total.dense() for key, total in mean.tensors().items()}


@settings(max_examples=20, deadline=None)
@given(cameras=st.integers(1, 9), scale=st.floats(0.1, 4))
def test_a_mean_that_learns_its_total_last_is_the_mean(cameras: int, scale: float):
    rows = [(state(seed), float(1 + 7 * seed)) for seed in range(cameras)]
    mean = DeltaMean()
    for one in said_by(rows, scale):
        mean.add(one)
    total = sum(weight for _, weight in rows)
    expected = float64_mean([(one, weight / total) for one, weight in rows], scale)
    assert off({name: found.dense().numpy() for name, found in mean.deltas().items()}, expected) < 1e-6


def test_ten_thousand_deltas_are_summed_to_a_millionth():
    total, exact = DeltaSum((50,)), np.zeros(50)
    for seed in range(10_000):
        change = np.random.default_rng(seed).standard_normal(50).astype(np.float32)
        total.add_dense(torch.from_numpy(change), 1e-4)
        exact += 1e-4 * change.astype(np.float64)
    assert np.linalg.norm(total.dense().numpy() - exact) < 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize("seeds", [1, 3, 9])
def test_a_sum_goes_on_from_its_parts_with_the_same_bytes(seeds: int):
    total = DeltaSum(SHAPES["conv.weight"])
    for seed in range(seeds):
        total.add_pair(state(seed)["conv.A"], state(seed)["conv.B"], 0.3)
    again = DeltaSum.of_parts({name: part.clone() for name, part in total.parts().items()})
    for one in (total, again):
        one.add_pair(state(77)["conv.A"], state(77)["conv.B"], 0.7)
    assert torch.equal(total.dense(), again.dense()) and total.rows == again.rows


def test_weights_matter():
    a, b = state(1), state(2)
    found = [sum_states([(a, w), (b, 1 - w)], SHAPES, 1.0) for w in (0.25, 0.75)]
    assert relative_distance(*found) > 0.1
    assert torch.allclose(found[0]["fc.bias"].dense(), 0.25 * a["fc.bias"] + 0.75 * b["fc.bias"])


def test_mean_of_deltas_is_not_delta_of_means():
    states = fleet(4)
    naive = sum_states([(apart(states), 1.0)], SHAPES, 1.0)
    exact = sum_states(states, SHAPES, 1.0)
    assert relative_distance(naive, exact) > 0.3
    assert relative_distance({"fc.weight": naive["fc.weight"]}, {"fc.weight": exact["fc.weight"]}) < 1e-6


def test_mean_of_deltas_is_delta_of_means_where_a_is_shared():
    shared = state(0)["conv.A"]
    states = [({**s, "conv.A": shared}, w) for s, w in fleet(4)]
    naive = sum_states([(apart(states), 1.0)], SHAPES, 1.0)
    assert relative_distance(naive, sum_states(states, SHAPES, 1.0)) < 1e-6


def test_a_stack_is_kept_while_it_is_thinner_than_the_dense_matrix():
    total = DeltaSum(SHAPES["conv.weight"])
    for seed in range(5):
        total.add_pair(state(seed)["conv.A"], state(seed)["conv.B"], 1.0)
        assert total.rows == 2 * (seed + 1) and total.factors() is not None
    total.add_pair(state(5)["conv.A"], state(5)["conv.B"], 1.0)  # 12 rows in a view of 18 x 12
    assert total.rows == 0 and total.factors() is None


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(8)), weight=st.floats(-2, 2))
def test_sums_of_sums_add_up_whatever_their_form(order: list[int], weight: float):
    def part(ids: list[int]) -> DeltaSum:
        return sum_states([(state(i), 1.0) for i in ids], SHAPES, 1.0)["conv.weight"]

    found = part(order[:3]).add(part(order[3:]), weight)  # 6 rows and 10, more than the view's 12 together
    expected = part(order[:3]).dense() + weight * part(order[3:]).dense()
    assert torch.allclose(found.dense(), expected, atol=1e-4)


def test_adding_writes_to_no_tensor_that_came():
    came = [state(i) for i in range(8)]
    kept = [{name: t.clone() for name, t in s.items()} for s in came]
    total = sum_states([(s, 0.5) for s in came], SHAPES, 2.0)
    DeltaSum(SHAPES["conv.weight"]).add(total["conv.weight"]).add(total["conv.weight"], -1.0)
    apart([(s, 0.5) for s in came])
    assert all(torch.equal(s[name], k[name]) for s, k in zip(came, kept, strict=True) for name in s)


@pytest.mark.parametrize("cameras", [1, 3, 9])
def test_a_norm_is_the_same_from_the_stack_and_from_the_dense_matrix(cameras: int):
    total = sum_states(fleet(cameras), SHAPES, 1.0)["conv.weight"]
    assert math.isclose(total.norm(), float(total.dense().double().norm()), rel_tol=1e-6)


def test_relative_distance_of_nothing_is_zero_and_of_something_from_nothing_infinite():
    nothing, some = {"fc.bias": DeltaSum((5,))}, {"fc.bias": DeltaSum((5,)).add_dense(torch.ones(5), 1.0)}
    assert relative_distance(nothing, nothing) == 0
    assert relative_distance(some, nothing) == math.inf
    assert relative_distance(nothing, some) == 1


@pytest.mark.parametrize("cameras", [1, 2, 4, 8])
@pytest.mark.parametrize("downlink", ["dense", "stack"])
def test_dense_and_stack_go_down_exactly(downlink: str, cameras: int):
    exact = sum_states(fleet(cameras), SHAPES, 2.0)
    update: State = {}
    for name, total in exact.items():
        update |= compressed(total, name, downlink, 2)
    assert relative_distance(sum_states([(update, 1.0)], SHAPES, 1.0), exact) < 1e-6


@pytest.mark.parametrize("cameras", range(1, 8))
def test_the_stack_is_sent_dense_where_that_is_smaller(cameras: int):
    sent = compressed(sum_states(fleet(cameras), SHAPES, 1.0)["conv.weight"], "conv.weight", "stack", 0)
    thinner = 2 * cameras * sum(VIEW) < math.prod(VIEW)
    assert sent.keys() == ({"conv.A", "conv.B"} if thinner else {"conv.weight"})


@settings(max_examples=20, deadline=None)
@given(cameras=st.integers(1, 8), rank=st.integers(1, 6))
def test_svd_sends_the_nearest_delta_of_its_rank(cameras: int, rank: int):
    total = sum_states(fleet(cameras), SHAPES, 1.0)["conv.weight"]
    sent = compressed(total, "conv.weight", "svd", rank)
    assert sent["conv.A"].shape[0] <= rank
    left = total.add_pair(sent["conv.A"], sent["conv.B"], -1.0).norm()
    singular = np.linalg.svd(float64_mean(fleet(cameras), 1.0)["conv.weight"].reshape(VIEW), compute_uv=False)
    assert math.isclose(left, float(np.linalg.norm(singular[rank:])), rel_tol=1e-4, abs_tol=1e-4)


def test_svd_is_sent_dense_where_its_rank_makes_the_pair_no_smaller():
    total = sum_states(fleet(8), SHAPES, 1.0)["conv.weight"]
    assert compressed(total, "conv.weight", "svd", 8).keys() == {"conv.weight"}


def test_nothing_is_multiplied_out_where_the_stack_is_thinner(monkeypatch: pytest.MonkeyPatch):
    def never(*_: object) -> Tensor:
        raise AssertionError("a dense matrix was built")

    states = [({key: t for key, t in s.items() if key.startswith("conv")}, w) for s, w in fleet(2)]
    monkeypatch.setattr(arithmetic, "delta", never)
    monkeypatch.setattr(arithmetic, "truncate_dense", never)
    monkeypatch.setattr(DeltaSum, "dense", never)
    exact = sum_states(states, SHAPES, 1.0)
    sent = compressed(exact["conv.weight"], "conv.weight", "svd", 2)
    assert sent["conv.A"].shape == (2, 12)
    assert 0 < relative_distance(sum_states([(sent, 1.0)], SHAPES, 1.0), exact) < 1


def test_at_most_one_cameras_dense_delta_is_in_memory():
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def decoded() -> Iterator[tuple[State, float]]:
        nonlocal most
        for camera in range(6):
            change = torch.full((64, 64), float(camera))
            alive.add(change)
            most = max(most, len(alive))
            made = {"big.weight": change}
            del change
            yield made, 1 / 6
            del made

    total = sum_states(decoded(), {"big.weight": (64, 64)}, 1.0)["big.weight"]
    assert torch.allclose(total.dense(), torch.full((64, 64), 2.5))
    assert most == 1


def test_kernel_wise_factors_are_summed_dense():
    g = torch.Generator().manual_seed(0)
    A, B = torch.randn(6, 4, 1, 3, generator=g), torch.randn(6, 4, 3, 1, generator=g)
    total = sum_states([({"conv.A": A, "conv.B": B}, 0.5)], SHAPES, 2.0)["conv.weight"]
    assert torch.allclose(total.dense(), torch.einsum("oipr,oirq->oipq", B, A), atol=1e-6)
    assert total.factors() is None


@pytest.mark.parametrize("lost", ["conv.A", "conv.B"])
def test_half_a_pair_is_refused(lost: str):
    with pytest.raises(FactorError, match="pairs"):
        sum_states([({key: t for key, t in state(0).items() if key != lost}, 1.0)], SHAPES, 1.0)
