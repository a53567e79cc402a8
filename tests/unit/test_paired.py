"""Laws of the paired test: p-values against scipy's, intervals against its t-test, what counts once."""

import math
from itertools import product
from statistics import fmean

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from fed_lorac.reporting.intervals import interval_95
from fed_lorac.reporting.paired import difference, holm, sign_flip_p

NUMBERS = st.lists(st.integers(-9, 9).map(lambda k: k / 100), min_size=2, max_size=8)


@given(values=NUMBERS)
@example(values=[-0.01, -0.02, 0.03])  # a sum of zero but for rounding
@settings(max_examples=40, deadline=None)
def test_a_p_value_is_that_of_scipys_permutation_of_pairs(values: list[float]) -> None:
    exact = np.array([round(100 * value) for value in values])  # whole numbers: sums without rounding
    wanted = stats.permutation_test(
        (exact, np.zeros_like(exact)), lambda a, b: math.fsum(a - b), permutation_type="samples", n_resamples=math.inf
    )
    assert sign_flip_p(values) == pytest.approx(wanted.pvalue)
    assert sign_flip_p(values) == sign_flip_p([-value for value in values])


def test_a_p_value_of_many_cameras_is_near_the_exact_one() -> None:
    values = [0.3, -0.1, 0.2, 0.25, -0.3, 0.1, 0.15, 0.4, -0.2, 0.05, 0.1, -0.05, 0.2, 0.3, -0.1, 0.02, 0.07]
    sums = [abs(math.fsum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((1, -1), repeat=17)]
    exact = fmean(one >= abs(math.fsum(values)) - 1e-12 for one in sums)
    assert sign_flip_p(values) == sign_flip_p(values) == pytest.approx(exact, rel=0.1) and 0 < exact < 0.1


def test_where_signs_are_chance_few_p_values_are_low() -> None:
    rng = np.random.default_rng(3)
    found = [sign_flip_p(rng.standard_normal(10).tolist()) for _ in range(400)]
    assert 0.02 < fmean(p <= 0.05 for p in found) < 0.09


def test_no_test_of_so_few_cameras_can_find_anything() -> None:
    assert sign_flip_p([0.1]) == 1 and sign_flip_p([0.1] * 5) == 2 / 2**5


@given(ps=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holms_values_are_those_of_its_steps(ps: list[float]) -> None:
    found = holm(ps)
    for p, adjusted in zip(ps, found, strict=True):
        steps = [(len(ps) - rank) * q for rank, q in enumerate(sorted(ps)) if q <= p]
        assert adjusted == pytest.approx(min(1, max(steps)))
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_difference_is_a_mean_of_seeds_with_the_interval_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = ({seed: dict(enumerate(rng.random(6))) for seed in range(3)} for _ in range(2))
    found = difference(ours, theirs)
    assert found is not None
    a, b = ([fmean(scores[seed].values()) for seed in range(3)] for scores in (ours, theirs))
    wanted = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.mean - found.half_95, found.mean + found.half_95) == pytest.approx((wanted.low, wanted.high))
    per_camera = [fmean(ours[seed][k] - theirs[seed][k] for seed in range(3)) for k in range(6)]
    assert (found.p, found.seeds, found.cameras) == (sign_flip_p(per_camera), 3, 6)


def test_a_seed_that_is_counted_again_does_not_make_a_difference_surer() -> None:
    ours, theirs = {k: 0.5 + 0.01 * k for k in range(6)}, {k: 0.5 + 0.015 * (k % 3) for k in range(6)}
    once, thrice = (
        difference({0: ours}, {0: theirs}),
        difference(dict.fromkeys(range(3), ours), dict.fromkeys(range(3), theirs)),
    )
    assert once is not None and thrice is not None and once.p == thrice.p and once.mean == pytest.approx(thrice.mean)
    assert math.isnan(once.half_95)


def test_only_cameras_that_both_have_over_one_fleet_are_compared() -> None:
    found = difference({"a": {0: 0.5, 1: 0.9}, "b": {0: 0.1}}, {"a": {0: 0.25, 2: 0.1}, "c": {0: 0.9}})
    assert found is not None and (found.mean, found.seeds, found.cameras, found.p) == (0.25, 1, 1, 1.0)
    assert difference({"a": {0: 0.5}}, {"b": {0: 0.5}}) is None is difference({"a": {0: 0.5}}, {"a": {1: 0.5}})


@given(values=st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_an_interval_is_students(values: list[float]) -> None:
    assert interval_95(values) == pytest.approx(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values), abs=1e-12)
    assert math.isnan(interval_95(values[:1]))
