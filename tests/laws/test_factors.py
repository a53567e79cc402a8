"""The algebra of factor pairs: laws of views, the two-step form, sums, truncation, and changes of weights."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from second_routes import two_step
from torch import Tensor

from fed_lorac.adapters.algebra.factors import (
    delta,
    init_factors,
    rank_rows,
    stack,
    to_view,
    truncate,
    truncate_dense,
    view_of,
)
from fed_lorac.adapters.deltas import apply_delta, as_folded, changed_names, check_delta, dense_delta, fold
from fed_lorac.errors import FactorError
from fed_lorac.seeds import torch_stream

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32)
small = st.integers(1, 6)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch_stream(seed, "test"), dtype=torch.float64).to(dtype)


def pair_of(seed: int, shape: tuple[int, int, int, int], height: int) -> tuple[Tensor, Tensor]:
    out, in_, k, _ = shape
    return normal(seed, height, in_ * k), normal(seed + 1, out * k, height)


@quick
@given(seed=seeds, out=small, in_=small, k=st.integers(1, 5), height=small)
def test_row_o_k_plus_p_of_the_product_fills_run_p_of_filter_o(seed: int, out: int, in_: int, k: int, height: int):
    A, B = pair_of(seed, (out, in_, k, k), height)
    change = delta(A, B, (out, in_, k, k), 0.5)
    for o in range(out):
        for p in range(k):
            run = change[o].reshape(-1)[p * in_ * k : (p + 1) * in_ * k]
            assert torch.allclose(run, 0.5 * B[o * k + p] @ A, atol=1e-12)


@quick
@given(
    seed=seeds,
    out=small,
    in_=small,
    k=st.integers(1, 5),
    height=small,
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_two_steps_are_the_dense_convolution(seed, out, in_, k, height, stride, padding, dilation, dtype):
    A, B = (f.to(dtype) / math.sqrt(height * in_ * k) for f in pair_of(seed, (out, in_, k, k), height))
    x = normal(seed + 2, 2, in_, 11, 10, dtype=dtype)
    how = {"stride": stride, "padding": padding, "dilation": dilation}
    dense = F.conv2d(x, delta(A, B, (out, in_, k, k), 2.0), **how)
    steps = two_step(x, A, B, (out, in_, k, k), 2.0, **how)
    assert torch.allclose(steps, dense, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-5)


@quick
@given(seed=seeds, out=small, in_=small, k=st.integers(1, 4), rank=st.integers(1, 3))
def test_kernel_wise_factors_are_one_product_a_kernel(seed: int, out: int, in_: int, k: int, rank: int):
    A, B = normal(seed, out, in_, rank, k), normal(seed + 1, out, in_, k, rank)
    change = delta(A, B, (out, in_, k, k), 3.0)
    for o in range(out):
        for i in range(in_):
            assert torch.allclose(change[o, i], 3.0 * B[o, i] @ A[o, i])


@pytest.mark.parametrize(("mode", "height"), [("r*k", 12), ("r", 4)])
def test_a_fresh_pair_has_the_papers_shapes_and_changes_nothing(mode: str, height: int):
    A, B = init_factors((8, 5, 3, 3), 4, mode, torch_stream(1, "a"))
    assert A.shape == (height, 15) and B.shape == (24, height) and A.dtype == torch.float32
    assert rank_rows(4, 3, mode) == height
    assert not B.any() and not delta(A, B, (8, 5, 3, 3), 2.0).any()


def test_a_fresh_a_is_drawn_as_the_weight_of_a_linear_layer():
    A, _ = init_factors((64, 64, 3, 3), 16, "r*k", torch_stream(1, "a"))
    K, _ = init_factors((64, 64, 3, 3), 2, "r", torch_stream(1, "k"), kernel_wise=True)
    for factor in (A, K):
        bound = 1 / math.sqrt(factor.shape[-1])  # nn.Linear: uniform within 1 / sqrt(fan-in)
        assert bound * 0.999 < factor.abs().max() <= bound * (1 + 1e-6)
        assert abs(factor.std().item() - bound / math.sqrt(3)) < 0.02 * bound
        assert abs(factor.mean().item()) < 0.03 * bound


def test_a_fresh_pair_depends_on_its_generator_alone():
    torch.manual_seed(1)
    first = init_factors((8, 5, 3, 3), 4, "r", torch_stream(7, "a"))[0]
    torch.manual_seed(2)
    assert torch.equal(first, init_factors((8, 5, 3, 3), 4, "r", torch_stream(7, "a"))[0])
    assert not torch.equal(first, init_factors((8, 5, 3, 3), 4, "r", torch_stream(8, "a"))[0])


def test_kernel_wise_factors_have_two_r_k_in_out_numbers():
    A, B = init_factors((8, 5, 3, 3), 2, "r*k", torch_stream(1, "a"), kernel_wise=True)
    assert A.numel() + B.numel() == 2 * 2 * 3 * 5 * 8
    assert A.shape == (8, 5, 2, 3) and B.shape == (8, 5, 3, 2)


def test_mean_of_deltas_is_not_delta_of_means():
    shape = (4, 3, 3, 3)
    pairs = [pair_of(10 * n, shape, 2) for n in range(2)]
    mean_of_deltas = sum(delta(A, B, shape, 1.0) for A, B in pairs) / 2
    delta_of_means = delta(sum(A for A, _ in pairs) / 2, sum(B for _, B in pairs) / 2, shape, 1.0)
    assert (mean_of_deltas - delta_of_means).abs().max() > 0.1


def test_with_one_shared_a_the_mean_of_deltas_is_the_delta_of_means():
    shape = (4, 3, 3, 3)
    A, Bs = normal(0, 2, 9), [normal(n, 12, 2) for n in (1, 2, 3)]
    mean_of_deltas = sum(delta(A, B, shape, 1.0) for B in Bs) / 3
    assert torch.allclose(mean_of_deltas, delta(A, sum(Bs) / 3, shape, 1.0))


@quick
@given(seed=seeds, heights=st.lists(st.integers(1, 4), min_size=1, max_size=4), kernel_wise=st.booleans())
def test_a_stack_is_the_weighted_sum_of_its_deltas(seed: int, heights: list[int], kernel_wise: bool):
    shape = (5, 4, 3, 3)
    weights = [0.25 * (n + 1) for n in range(len(heights))]
    pairs = [pair_of(seed + 2 * n, shape, height) for n, height in enumerate(heights)]
    if kernel_wise:
        pairs = [(normal(seed + n, 5, 4, h, 3), normal(seed - n, 5, 4, 3, h)) for n, h in enumerate(heights)]
    A, B = stack(pairs, weights)
    expected = sum(w * delta(*pair, shape, 2.0) for w, pair in zip(weights, pairs, strict=True))
    assert A.shape[-2] == B.shape[-1] == sum(heights)
    assert torch.allclose(delta(A, B, shape, 2.0), expected, atol=1e-12)


@quick
@given(seed=seeds, rows=st.integers(1, 14), cols=st.integers(1, 14), height=st.integers(1, 9), rank=st.integers(1, 9))
def test_truncation_errs_by_the_dropped_singular_values(seed: int, rows: int, cols: int, height: int, rank: int):
    A, B = normal(seed, height, cols), normal(seed + 1, rows, height)
    A_u, B_u = truncate(A, B, rank)
    tail = torch.linalg.svdvals(B @ A)[rank:]
    assert A_u.shape[0] == B_u.shape[1] <= rank
    assert torch.allclose(torch.linalg.norm(B @ A - B_u @ A_u), torch.linalg.norm(tail), atol=1e-10)


@quick
@given(seed=seeds, height=st.integers(1, 6), rank=st.integers(1, 6))
def test_thin_and_dense_truncation_agree(seed: int, height: int, rank: int):
    A, B = normal(seed, height, 12), normal(seed + 1, 15, height)
    thin, dense = truncate(A, B, rank), truncate_dense(B @ A, rank)
    u = thin[0].shape[0]
    assert torch.allclose(thin[1] @ thin[0], dense[1] @ dense[0], atol=1e-10)
    if u <= height:  # beyond the stack's rank the dense way has noise components of size 0
        assert torch.allclose(thin[0], dense[0][:u], atol=1e-6) and torch.allclose(thin[1], dense[1][:, :u], atol=1e-6)


def test_truncation_is_balanced_and_its_signs_are_fixed():
    A, B = normal(0, 5, 12), normal(1, 15, 5)
    A_u, B_u = truncate(A, B, 3)
    values = torch.linalg.svdvals(B @ A)[:3]
    assert torch.allclose(A_u @ A_u.T, torch.diag(values), atol=1e-10)
    assert torch.allclose(B_u.T @ B_u, torch.diag(values), atol=1e-10)
    assert (B_u.gather(0, B_u.abs().argmax(0, keepdim=True)) > 0).all()
    flipped = truncate(-A, -B, 3)  # the same product from other factors: the same pair
    assert torch.allclose(flipped[0], A_u) and torch.allclose(flipped[1], B_u)


def test_truncation_keeps_a_small_component_beside_a_large_one_in_float32():
    left, right = torch.linalg.qr(normal(0, 30, 2))[0], torch.linalg.qr(normal(1, 20, 2))[0]
    values = torch.tensor([1.0, 1e-4], dtype=torch.float64)
    A, B = right.T.float(), (left * values).float()
    A_u, B_u = truncate(A, B, 2)
    assert A_u.dtype == torch.float32
    assert torch.allclose(B_u @ A_u, B @ A, atol=1e-7)


def test_truncation_of_nothing_is_nothing():
    A, B = truncate(torch.zeros(3, 12), torch.zeros(15, 3), 2)
    assert not (B @ A).any() and A.isfinite().all() and B.isfinite().all()


def test_the_svd_downlink_with_a_residual_loses_nothing_over_rounds():
    change, residual, sent = normal(3, 12, 9), torch.zeros(12, 9, dtype=torch.float64), torch.zeros(12, 9).double()
    for _ in range(9):  # the same average nine times over; rank 1 goes down each time
        A, B = truncate_dense(change + residual, 1)
        residual, sent = change + residual - B @ A, sent + B @ A
    assert torch.allclose(sent + residual, 9 * change)


@quick
@given(seed=seeds, out=small, in_=small, k=st.integers(1, 4))
def test_a_view_and_back_is_the_weight(seed: int, out: int, in_: int, k: int):
    weight = normal(seed, out, in_, k, k)
    assert to_view(weight).shape == view_of(weight.shape) == (out * k, in_ * k)
    assert torch.equal(to_view(weight).reshape(weight.shape), weight)
    last = weight.to(memory_format=torch.channels_last)
    assert torch.equal(to_view(last), to_view(weight))


def test_a_matrix_is_its_own_view():
    assert view_of((10, 64)) == (10, 64)
    A, B = normal(0, 2, 64), normal(1, 10, 2)
    assert torch.allclose(delta(A, B, (10, 64), 2.0), 2 * B @ A)


@pytest.mark.parametrize("shape", [(4,), (4, 3, 3), (4, 3, 3, 3, 3)])
def test_a_shape_without_a_view_is_refused(shape: tuple[int, ...]):
    with pytest.raises(FactorError, match="of a 2-D convolution"):
        view_of(shape)


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [((2, 9), (12, 3)), ((2, 8), (12, 2)), ((2, 9), (11, 2)), ((9,), (12,)), ((4, 3, 2, 3), (4, 3, 3, 1))],
)
def test_a_misfit_of_factors_is_refused_with_what_came(a_shape: tuple[int, ...], b_shape: tuple[int, ...]):
    with pytest.raises(FactorError) as caught:
        delta(torch.zeros(a_shape), torch.zeros(b_shape), (4, 3, 3, 3), 1.0)
    assert str(tuple(a_shape)) in str(caught.value) and str(tuple(b_shape)) in str(caught.value)


def test_ranks_modes_and_stacks_out_of_range_are_refused():
    A, B = torch.zeros(2, 9), torch.zeros(12, 2)
    for wrong in (
        lambda: rank_rows(0, 3, "r"),
        lambda: rank_rows(1, 3, "auto"),
        lambda: truncate(A, B, 0),
        lambda: truncate(A.T, B, 1),
        lambda: truncate_dense(torch.zeros(2, 2, 3, 3), 1),
        lambda: stack([], []),
        lambda: stack([(A, B)], [0.5, 0.5]),
        lambda: stack([(A, B), (torch.zeros(2, 8), B)], [0.5, 0.5]),
        lambda: two_step(torch.zeros(1, 3, 8, 8), torch.zeros(4, 3, 1, 3), torch.zeros(4, 3, 3, 1), (4, 3, 3, 3), 1.0),
    ):
        with pytest.raises(FactorError):
            wrong()


SHAPES = {"stem.weight": (4, 3, 3, 3), "block.conv.weight": (4, 4, 3, 3), "fc.weight": (10, 4), "fc.bias": (10,)}


def some_state(seed: int) -> dict[str, Tensor]:
    return {
        "block.conv.A": normal(seed, 2, 12),
        "block.conv.B": normal(seed + 1, 12, 2),
        "fc.bias": normal(seed + 2, 10),
        "stem.weight": normal(seed + 3, 4, 3, 3, 3),
    }


def test_a_state_names_the_tensors_it_changes():
    assert changed_names(some_state(0)) == ("block.conv.weight", "fc.bias", "stem.weight")
    check_delta(some_state(0), SHAPES)


def test_the_scale_is_of_factors_and_not_of_dense_deltas():
    state = some_state(0)
    expected = delta(state["block.conv.A"], state["block.conv.B"], (4, 4, 3, 3), 2.0)
    assert torch.equal(dense_delta(state, "block.conv.weight", (4, 4, 3, 3), 2.0), expected)
    assert torch.equal(dense_delta(state, "stem.weight", (4, 3, 3, 3), 2.0), state["stem.weight"])


def test_a_sum_of_states_is_the_sum_of_their_deltas():
    sums = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    states, weights = [some_state(0), some_state(40)], [0.25, 0.75]
    for state, weight in zip(states, weights, strict=True):
        apply_delta(sums, state, 2.0, weight=weight)
    for name in changed_names(states[0]):
        parts = [dense_delta(state, name, SHAPES[name], 2.0) for state in states]
        assert torch.allclose(sums[name], 0.25 * parts[0] + 0.75 * parts[1])
    assert not sums["fc.weight"].any()


def test_a_delta_folds_into_a_network_as_into_its_tensors():
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3), torch.nn.BatchNorm2d(4)).double()
    net.to(memory_format=torch.channels_last)
    state = {"0.A": normal(0, 2, 12), "0.B": normal(1, 12, 2), "1.running_mean": normal(2, 4)}
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    before = tensors["0.weight"].clone()
    fold(net, state, 2.0)
    fold(tensors, state, 2.0)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in tensors.items())
    assert torch.allclose(tensors["0.weight"] - before, delta(state["0.A"], state["0.B"], (4, 4, 3, 3), 2.0))


@quick
@given(seed=seeds, dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]))
def test_a_variance_does_not_go_below_zero_and_what_counts_of_its_deltas_leads_where_they_do(
    seed: int, dtype: torch.dtype
):
    deltas = [{"1.running_var": normal(seed + k, 20), "1.running_mean": normal(seed - k, 20)} for k in range(3)]
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.BatchNorm2d(20)).to(dtype)
    start, mean = {"1.running_var": torch.ones(20, dtype=torch.float64)}, sum(d["1.running_mean"] for d in deltas)
    counted = [as_folded(start, delta) for delta in deltas]
    for delta_ in deltas:
        fold(net, delta_)
    variance, expected = net.state_dict()["1.running_var"], 1 + sum(d["1.running_var"] for d in counted)
    assert (variance >= 0).all() and torch.allclose(variance.double(), expected, atol=0.01)  # type: ignore[arg-type]
    assert torch.allclose(net.state_dict()["1.running_mean"].double(), mean, atol=0.02)  # type: ignore[arg-type]
    assert torch.equal(start["1.running_var"].clamp(min=0), start["1.running_var"])
    assert all(torch.equal(d["1.running_mean"], c["1.running_mean"]) for d, c in zip(deltas, counted, strict=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"block.conv.A": torch.zeros(2, 12)},
        {"block.conv.B": torch.zeros(12, 2)},
        {"stem.weight": torch.zeros(4, 3, 3, 2)},
        {"nowhere.weight": torch.zeros(4)},
        {"block.conv.A": torch.zeros(2, 11), "block.conv.B": torch.zeros(12, 2)},
        {"fc.bias.A": torch.zeros(1, 10), "fc.bias.B": torch.zeros(1, 1)},
        {"count": torch.zeros(())},
        {
            "block.conv.A": torch.zeros(2, 12),
            "block.conv.B": torch.zeros(12, 2),
            "block.conv.weight": torch.zeros(4, 4, 3, 3),
        },
    ],
)
def test_a_misfit_state_is_refused_and_moves_nothing(wrong: dict[str, Tensor]):
    weights = {name: torch.ones(shape) for name, shape in SHAPES.items()} | {"count": torch.tensor(3)}
    with pytest.raises(FactorError):
        fold(weights, {"fc.weight": torch.ones(10, 4), **wrong})
    assert all((tensor == 1).all() for name, tensor in weights.items() if name != "count")


def test_a_delta_that_no_state_has_is_refused():
    with pytest.raises(FactorError, match="asked for"):
        dense_delta(some_state(0), "fc.weight", (10, 4), 1.0)
