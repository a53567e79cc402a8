"""Laws of the aggregators: each by another route in NumPy, and what a few bad cameras can do to it."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cameras import float64_mean, off, said_by, state
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_lorac.aggregation.aggregators import Aggregator, ClippedMean, Krum, Mean, Median, TrimmedMean
from fed_lorac.aggregation.delta_sum import State
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.seeds import torch_stream

Rows = list[tuple[State, float]]


def fleet(cameras: int) -> Rows:
    return [(state(seed), 100.0 + 37 * seed) for seed in range(cameras)]


def found(how: Aggregator, states: Rows, seed: int = 0) -> dict[str, np.ndarray]:
    sums = how.aggregate(iter(said_by(states, 2.0)), lambda: torch_stream(seed, "noise", 1))
    return {name: total.dense().numpy().astype(np.float64) for name, total in sums.items()}


def deltas(states: Rows) -> dict[str, np.ndarray]:
    """Every camera's merged deltas, (cameras, ...)."""
    each = [float64_mean([(one, 1.0)], 2.0) for one, _ in states]
    return {name: np.stack([dense[name] for dense in each]) for name in each[0]}


@settings(max_examples=15, deadline=None)
@given(cameras=st.integers(1, 9))
def test_each_is_what_numpy_says(cameras: int) -> None:
    states = fleet(cameras)
    each = deltas(states)
    total = sum(weight for _, weight in states)
    assert off(found(Mean(), states), float64_mean([(one, w / total) for one, w in states], 2.0)) < 1e-6
    assert off(found(Median(), states), {n: np.median(d, axis=0) for n, d in each.items()}) < 1e-6
    cut = int(0.3 * cameras)
    trimmed = {n: np.sort(d, axis=0)[cut : cameras - cut].mean(axis=0) for n, d in each.items()}
    assert off(found(TrimmedMean(0.3), states), trimmed) < 1e-6


def test_krum_takes_the_delta_that_is_nearest_to_its_neighbours() -> None:
    def like(seed: int) -> State:
        draw = torch.Generator().manual_seed(seed)
        return {key: t + 0.01 * torch.randn(t.shape, generator=draw) for key, t in state(3).items()}

    near = [(like(seed), 1.0) for seed in range(5)]
    chosen = found(Krum(malicious=2), [(state(50), 1.0), *near, (state(51), 1.0)])
    each = deltas(near)
    assert any(all(np.allclose(chosen[n], each[n][k], atol=1e-5) for n in each) for k in range(5))


@pytest.mark.parametrize("how", [Median(), TrimmedMean(0.2), Krum()])
def test_one_camera_cannot_move_a_robust_aggregator_far(how: Aggregator) -> None:
    states = fleet(7)
    bad = {key: 1e6 * torch.ones_like(t) for key, t in state(0).items()}
    honest, attacked = found(how, states), found(how, [*states[:-1], (bad, 1.0)])
    size = max(np.abs(d).max() for d in deltas(states).values())
    assert all(np.abs(attacked[key]).max() <= size for key in honest)
    mean = found(Mean(), [*states[:-1], (bad, 1.0)])
    assert max(np.abs(mean[key]).max() for key in mean) > 1e3 * size


def test_clipping_bounds_each_cameras_norm() -> None:
    states = fleet(4)
    each = deltas(states)
    norms = np.sqrt(sum((d.reshape(4, -1) ** 2).sum(axis=1) for d in each.values()))
    bound = float(np.median(norms))
    weights = np.array([w for _, w in states]) / sum(w for _, w in states)
    factors = weights * np.minimum(1, bound / norms)
    expected = {name: np.tensordot(factors, d, axes=1) for name, d in each.items()}
    assert off(found(ClippedMean(clip_norm=bound), states), expected) < 1e-5
    whole = found(ClippedMean(clip_norm=1e9), states)
    assert off(whole, found(Mean(), states)) < 1e-6


def test_noise_has_the_deviation_that_was_asked_for_and_the_rounds_own_stream() -> None:
    states = fleet(4)
    calm = found(ClippedMean(clip_norm=2.0), states)
    noisy = found(ClippedMean(clip_norm=2.0, noise=3.0), states)
    added = np.concatenate([(noisy[name] - calm[name]).ravel() for name in calm])
    assert abs(added.std() / (3.0 * 2.0 / 4) - 1) < 0.2 and abs(added.mean()) < 0.4
    again = found(ClippedMean(clip_norm=2.0, noise=3.0), states)
    assert all(np.array_equal(again[name], noisy[name]) for name in noisy)
    other = found(ClippedMean(clip_norm=2.0, noise=3.0), states, seed=1)
    assert not np.array_equal(other["fc.bias"], noisy["fc.bias"])


@pytest.mark.parametrize("how", [Mean(), ClippedMean(clip_norm=1e9), Median(), TrimmedMean(), Krum()])
def test_equal_cameras_are_a_fixed_point(how: Aggregator) -> None:
    one = state(2)
    expected = float64_mean([(one, 1.0)], 2.0)
    assert off(found(how, [(one, 5.0)] * 5), expected) < 1e-6


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="aggregator has no meaning under"):
        Config.from_flat({"strategy.name": "factor-fedavg", "strategy.aggregator": "median"})
    with pytest.raises(ConfigError, match="no stack of factors is left"):
        Config.from_flat({"strategy.merged.downlink": "stack", "strategy.aggregator": "trimmed"})


def numbers_in(said: str, pattern: str) -> list[float]:
    return [float(number) for number in re.findall(pattern, said)]


@given(cameras=st.integers(1, 300), share=st.floats(1e-4, 0.499))
def test_a_trimmed_mean_that_would_cut_nobody_off_is_refused_with_what_would(cameras: int, share: float) -> None:
    said = TrimmedMean(share).refuses_cameras(cameras)
    assert (said is None) == (int(share * cameras) >= 1)
    if said:
        [enough] = numbers_in(said, r"Let (\d+) or more")
        assert TrimmedMean(share).refuses_cameras(int(enough)) is None
        for larger in numbers_in(said, r"set trim_fraction = ([\d.]+\d)"):
            assert TrimmedMean(larger).refuses_cameras(cameras) is None
    assert TrimmedMean(0.0).refuses_cameras(cameras) is None  # which says that it is the mean


@given(cameras=st.integers(1, 60), malicious=st.integers(0, 60))
def test_krum_is_refused_where_its_proof_does_not_hold(cameras: int, malicious: int) -> None:
    said = Krum(malicious).refuses_cameras(cameras)
    assert (said is None) == (2 * malicious + 2 < cameras)
    if said:
        [enough] = numbers_in(said, r"Let (\d+) or more")
        assert Krum(malicious).refuses_cameras(int(enough)) is None
        for fewer in numbers_in(said, r"set malicious = (\d+)"):
            assert Krum(int(fewer)).refuses_cameras(cameras) is None


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: TrimmedMean(0.5), r"TrimmedMean\.trim_fraction must be .*below 0\.5"),
        (lambda: Krum(-1), r"Krum\.malicious must be a whole number, at least 0"),
        (lambda: ClippedMean(0.0), r"ClippedMean\.clip_norm must be .*above 0"),
        (lambda: ClippedMean(noise=-1.0), r"ClippedMean\.noise must be .*at least 0"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(make: Callable[[], Aggregator], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make()


@given(share=st.floats(0, 1e-12, exclude_min=True, exclude_max=True))
def test_a_trimmed_mean_of_next_to_nothing_is_refused_at_once(share: float) -> None:
    assert "Let 1000000000000 or more take part" in str(TrimmedMean(share).refuses_cameras(100))
