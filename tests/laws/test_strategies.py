"""Laws of the strategies: what a round makes of its replies, what goes down, who gets what again."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from cameras import (
    BASE,
    GRID,
    SHAPES,
    answer,
    float64_mean,
    folded,
    frame,
    off,
    reply,
    roster,
    served,
    state,
    tell,
    train,
)
from flwr.app import ArrayRecord, ConfigRecord
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_lorac.adapters.deltas import fold
from fed_lorac.aggregation.aggregators import Aggregator, Krum, Median, TrimmedMean
from fed_lorac.aggregation.delta_sum import DeltaSum, Sums
from fed_lorac.errors import ConfigError, FactorError, FrameError, RunError
from fed_lorac.grid.in_process import in_process
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.server.frame_strategy import FrameStrategy, _add_to_arrays
from fed_lorac.server.strategy import Strategy
from fed_lorac.wire.frame import decode, encode, inspect
from fed_lorac.wire.updates import global_fingerprint
from strategies.factor_fedavg import FactorFedAvg
from strategies.fedavg import FedAvg
from strategies.merged import DOWNLINKS, MergedFedAvg


@pytest.fixture(autouse=True, scope="module")
def identity() -> Iterator[None]:
    with task_identity():
        yield


def merged(cameras: int = 3, **changes: Any) -> FrameStrategy:
    return served(MergedFedAvg, cameras, **changes)


def residual(strategy: FrameStrategy) -> Sums:
    """What svd has left out so far, by tensor name."""
    return strategy.sums.get("residual", {})


def weighted(seeds: dict[int, int]) -> list[tuple[dict[str, torch.Tensor], float]]:
    """The states that `train` sends, with their weights."""
    total = sum(camera + 1 for camera in seeds)
    return [(state(seed), (camera + 1) / total) for camera, seed in seeds.items()]


@pytest.mark.parametrize("downlink", ["dense", "stack"])
def test_cameras_fold_the_exact_mean(downlink: str):
    seeds = {0: 4, 1: 5, 2: 6}
    strategy = merged(downlink=downlink, scale=2.0)
    train(strategy, 1, seeds)
    assert off(folded(strategy), float64_mean(weighted(seeds), 2.0)) < 1e-6
    assert strategy.report.aggregation_error < 1e-6


@pytest.mark.parametrize("downlink", DOWNLINKS)
def test_one_camera_comes_back_as_it_was(downlink: str):
    strategy = merged(1, downlink=downlink)
    train(strategy, 1, {0: 4})
    assert off(folded(strategy), float64_mean([(state(4), 1.0)])) < 1e-6


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("rank", [0, 1])
def test_what_svd_leaves_out_is_late_and_never_lost(dtype: str, rank: int):
    strategy = merged(dtype=dtype, svd_rank=rank, scale=0.5)
    means = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for number in range(1, 7):
        seeds = {camera: 10 * number + camera for camera in range(3) if camera != number % 4}
        train(strategy, number, seeds)
        tell(strategy, number)
        for name, mean in float64_mean(weighted(seeds), 0.5).items():
            means[name] += mean
        owed = {name: total.dense().numpy() for name, total in residual(strategy).items()}
        assert off({name: d + owed[name] for name, d in folded(strategy).items()}, means) < 1e-5
    assert off(folded(strategy), means) > 1e-4


def test_without_the_residual_what_svd_leaves_out_is_lost():
    strategy = merged(keep_residual=False)
    train(strategy, 1, {0: 4, 1: 5, 2: 6})
    assert not residual(strategy) and strategy.report.aggregation_error > 0.1


def test_svd_sends_the_rank_that_came_up_or_the_one_that_is_set():
    for rank, rows in ((0, 2), (1, 1), (4, 4)):
        strategy = merged(svd_rank=rank)
        train(strategy, 1, {0: 4, 1: 5, 2: 6})
        shapes = inspect(strategy.updates[0].frame).shapes
        assert shapes == {"conv.A": (rows, 12), "conv.B": (18, rows), "fc.bias": (5,), "fc.weight": (5, 6)}


@pytest.mark.parametrize("downlink", DOWNLINKS)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(5)))
def test_arrival_order_does_not_matter_to_the_last_bit(downlink: str, order: list[int]):
    seeds = {camera: camera for camera in range(5)}
    frames = []
    for arrival in (None, order):
        strategy = merged(5, downlink=downlink)
        train(strategy, 1, seeds, arrival)
        train(strategy, 2, {camera: 9 + seed for camera, seed in seeds.items()}, arrival)
        frames.append([update.frame for update in strategy.updates])
    assert frames[0] == frames[1]


def test_naive_averaging_is_off_and_says_so():
    naive, exact = (served(kind) for kind in (FactorFedAvg, FedAvg))
    for strategy in (naive, exact):
        train(strategy, 1, {0: 4, 1: 5, 2: 6})
    mean = float64_mean(weighted({0: 4, 1: 5, 2: 6}))
    assert off(folded(exact), mean) < 1e-6
    error = math.hypot(*(np.linalg.norm(folded(naive)[n] - mean[n]) for n in mean)) / math.hypot(
        *(np.linalg.norm(m) for m in mean.values())
    )
    assert math.isclose(naive.report.aggregation_error, error, rel_tol=1e-5) and error > 0.3


def test_full_is_numpys_average_of_the_parameters():
    shapes = {"w": (3, 2), "b": (3,)}
    states = [
        {n: torch.randn(s, generator=torch.Generator().manual_seed(k)) for n, s in shapes.items()} for k in range(4)
    ]
    strategy = served(FedAvg, 4, shapes=shapes, template=shapes)
    list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), GRID))
    base, examples = global_fingerprint(BASE, 0), [5, 10, 20, 65]
    frames = [encode(s, dtype="fp32", base=base) for s in states]
    strategy.aggregate_train(1, [reply(k, answer(f, num_examples=examples[k])) for k, f in enumerate(frames)])
    sent = decode(strategy.updates[0].frame, base=base)
    for name in shapes:
        expected = np.average(np.stack([s[name].numpy().astype(np.float64) for s in states]), axis=0, weights=examples)
        assert np.allclose(sent[name].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("lost", range(4))
def test_those_who_remain_are_averaged_with_weights_that_sum_to_one(lost: int):
    strategy = merged(4, downlink="dense")
    seeds = {camera: camera for camera in range(4) if camera != lost}
    list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), GRID))
    answers = [reply(k, answer(frame(k), num_examples=100 * (k + 1))) for k in seeds]
    _, metrics = strategy.aggregate_train(1, [*answers, reply(lost, answer(frame(lost)[:-1]))])
    assert off(folded(strategy), float64_mean(weighted(seeds))) < 1e-6
    assert [r.reason for r in strategy.report.replies if not r.counted] == ["truncated"]
    assert metrics is not None and metrics["num-examples"] == sum(100 * (k + 1) for k in seeds)


def test_below_the_quorum_a_round_is_skipped_and_the_state_untouched():
    strategy = merged(3, quorum=2)
    train(strategy, 1, {0: 4, 1: 5, 2: 6})
    tell(strategy, 1, deaf=[2])
    before = (list(strategy.updates), dict(strategy.confirmed), {n: t.dense() for n, t in residual(strategy).items()})
    list(strategy.configure_train(2, ArrayRecord(), ConfigRecord(), GRID))
    assert strategy.aggregate_train(2, [reply(0, answer(frame(7, 1))), reply(1, answer(frame(8, 0)))]) == (None, None)
    assert strategy.report.skipped and [r.counted for r in strategy.report.replies] == [True, False, False]
    assert math.isnan(strategy.report.aggregation_error)
    assert (strategy.updates, strategy.confirmed) == before[:2]
    assert all(torch.equal(residual(strategy)[name].dense(), left) for name, left in before[2].items())
    assert tell(strategy, 2) == {0: [], 1: [], 2: ["update-000001"]}
    train(strategy, 3, {0: 4, 1: 5})
    assert not strategy.report.skipped and [update.round for update in strategy.updates] == [1, 3]


@pytest.mark.parametrize(("how", "least"), [(Krum(malicious=1), 5), (TrimmedMean(0.2), 5), (Median(), 1)])
def test_replies_that_are_too_few_for_the_aggregator_skip_the_round_whatever_the_quorum(how: Aggregator, least: int):
    for replies in range(1, 7):
        strategy = merged(6, quorum=1, downlink="dense", aggregator=how)
        train(strategy, 1, {camera: camera for camera in range(replies)})
        assert strategy.report.skipped == (replies < least) == (not strategy.updates)


def test_an_update_that_its_dtype_cannot_hold_skips_the_round():
    strategy = merged(2, dtype="fp16", downlink="dense")
    list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), GRID))
    huge = frame(0, **{"fc.bias": torch.full((5,), 1e6)})
    assert strategy.aggregate_train(1, [reply(0, answer(huge)), reply(1, answer(frame(1)))]) == (None, None)
    assert strategy.report.skipped and not strategy.updates
    assert {r.reason for r in strategy.report.replies} == {"the update is refused: overflow"}


def test_rounds_of_a_strategy_go_up():
    strategy = merged(1)
    train(strategy, 3, {0: 4})
    with pytest.raises(RunError, match="after round 3"):
        strategy.configure_train(1, ArrayRecord(), ConfigRecord(), GRID)


def test_a_draw_beyond_the_roster_is_refused():
    with pytest.raises(RunError, match=r"\[5\]"):
        merged(3, draw=lambda _: [0, 5]).configure_train(1, ArrayRecord(), ConfigRecord(), GRID)


def test_nodes_become_cameras_as_they_register():
    grid = in_process(ClientApp(), 3)
    grid.nodes = [1001, 1002]
    strategy = merged(0)
    assert len(list(strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid))) == 2
    grid.nodes = [1000, 1001, 1002]
    assert len(list(strategy.configure_evaluate(1, ArrayRecord(), ConfigRecord(), grid))) == 3
    assert strategy.roster == {1001: 0, 1002: 1, 1000: 2}
    given_one = merged(2)
    given_one.configure_train(1, ArrayRecord(), ConfigRecord(), grid)
    assert given_one.roster == roster(2)


def test_a_round_waits_for_a_quorum_to_register_and_not_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FrameStrategy, "wait_s", 0.0)
    assert not list(merged(0, quorum=2).configure_train(1, ArrayRecord(), ConfigRecord(), GRID))


@pytest.mark.parametrize("kind", [MergedFedAvg, FactorFedAvg])
def test_the_arrays_that_were_given_are_kept_current(kind: type[Strategy]):
    strategy = served(kind, 2, scale=2.0)
    start = {name: torch.ones(shape) for name, shape in SHAPES.items()} | {"bn.num_batches_tracked": torch.tensor(3)}
    arrays = ArrayRecord(start)
    for number in (1, 2):
        list(strategy.configure_train(number, arrays, ConfigRecord(), GRID))
        frames = [frame(10 * number + k, strategy.folded_round) for k in range(2)]
        now, _ = strategy.aggregate_train(number, [reply(k, answer(f)) for k, f in enumerate(frames)])
        assert now is not None
        arrays = now
    gained = folded(strategy)
    if kind is FactorFedAvg:  # the last factors replace those before; scaled where they are used
        last = decode(strategy.updates[-1].frame, base=global_fingerprint(BASE, 1))
        gained["conv.weight"] = float64_mean([(last, 1.0)], 2.0)["conv.weight"]
    found = arrays.to_torch_state_dict()
    assert found.keys() == start.keys() and found["bn.num_batches_tracked"] == 3
    assert all(np.allclose(found[name].numpy(), 1 + gained[name], atol=1e-5) for name in SHAPES)


def test_arrays_have_the_variances_that_cameras_have():
    """Both ends cut what goes below zero, to the same bytes."""
    change = torch.tensor([-0.6, -0.5, 0.1, 0.2, -1e-9])
    held = {"bn.running_var": torch.tensor([0.5, 0.5, 0.5, 0.0, 0.0]), "bn.weight": torch.zeros(5)}
    gained = {name: DeltaSum((5,)).add_dense(change, 1.0) for name in held}
    arrays = _add_to_arrays(ArrayRecord(held), gained).to_torch_state_dict()
    fold(held, dict.fromkeys(held, change))
    assert all(arrays[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in held.items())
    assert held["bn.running_var"].min() == 0 and held["bn.weight"].min() < 0


def test_arrays_of_another_network_are_refused():
    with pytest.raises(ConfigError, match=r"conv\.weight"):
        merged(1).configure_train(1, ArrayRecord({"module.conv.weight": torch.ones(1)}), ConfigRecord(), GRID)


def test_settings_that_cannot_work_are_refused_at_once():
    with pytest.raises(ConfigError, match="smoke"):
        merged(downlink="smoke")
    with pytest.raises(ConfigError, match="-1"):
        merged(svd_rank=-1)
    with pytest.raises(FrameError, match="fp8"):
        merged(dtype="fp8")
    with pytest.raises(FactorError, match="another layer or rank"):
        merged(shapes=SHAPES | {"conv.weight": (6, 5, 3, 3)})
    with pytest.raises(FactorError, match=r"fc\.bias"):
        merged(shapes={name: shape for name, shape in SHAPES.items() if name != "fc.bias"})
