"""Laws of the split by rank within class."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_lorac.data.splits import split_by_rank
from fed_lorac.errors import ConfigError

LABELS = st.lists(st.integers(0, 5), max_size=200).map(lambda labels: np.array(labels, np.int64))
SHARES = st.lists(st.integers(0, 10), min_size=1, max_size=4).filter(any).map(lambda w: [part / sum(w) for part in w])


@given(LABELS, SHARES)
def test_parts_are_disjoint_cover_everything_and_keep_the_order(labels: np.ndarray, shares: Sequence[float]) -> None:
    parts = split_by_rank(labels, shares)
    assert len(parts) == len(shares)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    assert all((np.diff(part) > 0).all() and part.dtype == np.int64 for part in parts)


@given(LABELS, SHARES)
def test_each_class_is_within_one_image_of_its_share_in_every_part(labels: np.ndarray, shares: Sequence[float]) -> None:
    for part, share in zip(split_by_rank(labels, shares), shares, strict=True):
        for label in np.unique(labels):
            assert abs((labels[part] == label).sum() - share * (labels == label).sum()) <= 1 + 1e-9


@given(LABELS, SHARES)
def test_an_earlier_part_holds_the_lower_ranks_of_every_class(labels: np.ndarray, shares: Sequence[float]) -> None:
    parts = split_by_rank(labels, shares)
    for label in np.unique(labels):
        in_part_order = np.concatenate([part[labels[part] == label] for part in parts])
        assert (np.diff(in_part_order) > 0).all()


@given(LABELS, SHARES, st.randoms(use_true_random=False))
def test_the_split_depends_on_ranks_and_not_on_how_classes_are_interleaved(
    labels: np.ndarray, shares: Sequence[float], random: Random
) -> None:
    """CIFAR's files mix the classes, an image folder sorts by them: both give each class's same images away."""

    def ranks(of: np.ndarray) -> list[list[list[int]]]:
        rank = np.array([(of[:i] == label).sum() for i, label in enumerate(of)], np.int64)
        return [[sorted(rank[p[of[p] == label]].tolist()) for label in range(6)] for p in split_by_rank(of, shares)]

    mixed = labels.tolist()
    random.shuffle(mixed)
    assert ranks(labels) == ranks(np.sort(labels)) == ranks(np.array(mixed, np.int64))


def test_of_5000_images_a_class_the_first_3000_are_the_clouds() -> None:
    labels = np.tile(np.arange(10), 5000)
    cloud, fleet = split_by_rank(labels, (0.6, 0.4))
    assert [np.bincount(labels[part]).tolist() for part in (cloud, fleet)] == [[3000] * 10, [2000] * 10]
    assert cloud.max() < fleet.min()


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.2, -0.2), (float("nan"), 1.0), ()])
def test_shares_that_are_not_shares_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="sum to 1"):
        split_by_rank(np.zeros(4, np.int64), shares)
