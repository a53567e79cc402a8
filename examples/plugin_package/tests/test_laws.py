"""The laws that fed-lorac holds its own parts to, for these."""

from rooftop.adapter import Patterns
from rooftop.corruption import drizzle
from rooftop.dataset import shapes
from rooftop.model import small
from rooftop.strategy import GeometricMedian

from fed_lorac.testing import check_adapter, check_corruption, check_dataset, check_model, check_strategy


def test_the_adapter() -> None:
    check_adapter(Patterns(count=3))


def test_the_strategy() -> None:
    check_strategy(GeometricMedian(steps=2), Patterns())


def test_the_corruption() -> None:
    check_corruption(drizzle)
    check_corruption(drizzle, length=5)


def test_the_model() -> None:
    check_model(small, channels=4)


def test_the_data_set() -> None:
    check_dataset(shapes, count=90)
