"""Laws of means over a sample: the standard error is that of the draw, by simulation too."""

import math
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac.reporting.sampling import Sample
from fed_lorac.seeds import stream

ALL = {0: (40, 40), 1: (50, 50), 2: (60, 60)}


def test_of_all_cameras_and_images_nothing_is_drawn_and_the_error_is_zero() -> None:
    assert Sample(3, ALL).standard_error({0: 0.5, 1: 0.7, 2: 0.9}) == 0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_of_whole_cameras_it_is_the_textbooks_for_a_simple_random_sample(accuracies: list[float]) -> None:
    count, of = len(accuracies), 50
    textbook = float(np.std(accuracies, ddof=1)) * math.sqrt((1 - count / of) / count)
    found = Sample(of, dict.fromkeys(range(count), (40, 40))).standard_error(dict(enumerate(accuracies)))
    assert found == pytest.approx(textbook, abs=1e-12)


def test_what_cannot_be_told_is_none() -> None:
    assert Sample(3, ALL).standard_error({}) is None
    assert Sample(3, ALL).standard_error({1: 0.5}) is None
    assert Sample(1, {0: (1, 50)}).standard_error({0: 1.0}) is None
    assert Sample(1, {0: (25, 50)}).standard_error({0: 0.6}) == pytest.approx(math.sqrt(0.5 * 0.24 / 24))


@pytest.mark.parametrize(("cameras", "images"), [(6, 40), (30, 10), (6, 10)])
def test_it_is_the_spread_of_the_mean_over_draws(cameras: int, images: int) -> None:
    rng, of, each = stream(0, "sampling law"), 30, 40
    right = rng.random((of, each)) < np.linspace(0.3, 0.95, of)[:, None]
    means, squares = [], []
    for _ in range(1500):
        drawn = rng.permutation(of)[:cameras].tolist()
        scores = {k: float(right[k, rng.permutation(each)[:images]].mean()) for k in drawn}
        means.append(fmean(scores.values()))
        error = Sample(of, dict.fromkeys(drawn, (images, each))).standard_error(scores)
        assert error is not None
        squares.append(error**2)
    assert math.sqrt(fmean(squares)) == pytest.approx(pstdev(means), rel=0.08)
