"""Aggregators: the mean of a round's deltas, or a robust one that a few bad cameras cannot move far. Knows states and
sums; not Flower's messages or frames.

Centres other than the mean take the merged deltas dense, all at once, and every camera alike; median, trimmed mean and
Krum are Flower's own functions. "clipped" is the mean of deltas whose norm is cut, with Gaussian noise where asked: one
camera's influence is bounded, which is what differential privacy builds on; no privacy accountant is kept here.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fed_lorac.aggregation.delta_sum import DeltaSum, Mean, State, Sums, sum_states
from fed_lorac.errors import ConfigError

__all__ = ["AGGREGATORS", "Aggregator"]

Weighted = Iterable[tuple[State, float]]


@dataclass(frozen=True)
class Aggregator:
    """How deltas become one.

    `trim_fraction`: share cut off on each side; `malicious`: number of malicious cameras that Krum assumes;
    `clip_norm`: the largest norm of a delta, over all tensors; `noise`: its deviation over clip_norm / cameras.
    """

    name: str = "mean"
    trim_fraction: float = 0.1
    malicious: int = 1
    clip_norm: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if (
            self.name not in AGGREGATORS
            or not 0 <= self.trim_fraction < 0.5
            or self.malicious < 0
            or not self.clip_norm > 0
        ):
            raise ConfigError(
                f"An aggregator is one of {', '.join(AGGREGATORS)}; trim_fraction is in [0, 0.5), malicious at least 0,"
                f" clip_norm above 0; got {self.name!r}, {self.trim_fraction}, {self.malicious} and {self.clip_norm}."
            )

    @property
    def elementwise(self) -> bool:
        """Whether it acts on each entry of dense deltas, so that no factors are left."""
        return self.name in ("median", "trimmed") or (self.name == "clipped" and self.noise > 0)

    def of(
        self, states: Weighted, shapes: Mapping[str, Sequence[int]], scale: float, draw: Callable[[], torch.Generator]
    ) -> Sums:
        """The aggregator of these states' deltas by tensor name; `draw` gives the round's stream, for noise."""
        return AGGREGATORS[self.name](self, states, shapes, scale, draw)


def _mean(how: Aggregator, states: Weighted, shapes: Mapping[str, Sequence[int]], scale: float, draw: object) -> Sums:
    """FedAvg's (McMahan et al. 2017, arXiv 1602.05629): by examples, state by state as they come."""
    mean = Mean(shapes, scale)
    for state, weight in states:
        mean.add(state, weight)
        del state  # else it would live on while the next one is decoded
    return mean.deltas()


def _clipped(
    how: Aggregator,
    states: Weighted,
    shapes: Mapping[str, Sequence[int]],
    scale: float,
    draw: Callable[[], torch.Generator],
) -> Sums:
    """The mean of deltas of norm at most c, plus noise of deviation `noise` c / n on each entry (McMahan et al. 2018,
    arXiv 1710.06963, section 3)."""
    mean, cameras = Mean(shapes, scale), 0
    for state, weight in states:
        norm = math.hypot(*(total.norm() for total in sum_states([(state, 1.0)], shapes, scale).values()))
        mean.add(state, weight, factor=min(1.0, how.clip_norm / norm) if norm else 1.0)
        cameras += 1
    found = mean.deltas()
    if how.noise:
        stream, deviation = draw(), how.noise * how.clip_norm / cameras
        for name in sorted(found):
            found[name].add_dense(torch.randn(found[name].shape, generator=stream, dtype=torch.float64), deviation)
    return found


def _median(how: Aggregator, states: Weighted, shapes: Mapping[str, Sequence[int]], scale: float, draw: object) -> Sums:
    """Each entry's median (Yin et al. 2018, arXiv 1803.01498, definition 1)."""
    from flwr.server.strategy.aggregate import aggregate_median  # noqa: PLC0415  (slow to import)

    names, rows = _dense(states, shapes, scale)
    return _sums(names, aggregate_median(rows))


def _trimmed(
    how: Aggregator, states: Weighted, shapes: Mapping[str, Sequence[int]], scale: float, draw: object
) -> Sums:
    """Each entry's mean without the largest and smallest (Yin et al. 2018, arXiv 1803.01498, definition 2)."""
    from flwr.server.strategy.aggregate import aggregate_trimmed_avg  # noqa: PLC0415

    names, rows = _dense(states, shapes, scale)
    return _sums(names, aggregate_trimmed_avg(rows, how.trim_fraction))


def _krum(how: Aggregator, states: Weighted, shapes: Mapping[str, Sequence[int]], scale: float, draw: object) -> Sums:
    """The delta that is nearest to its n - f - 2 nearest (Blanchard et al. 2017, arXiv 1703.02757)."""
    from flwr.server.strategy.aggregate import aggregate_krum  # noqa: PLC0415

    names, rows = _dense(states, shapes, scale)
    return _sums(names, aggregate_krum(rows, how.malicious, 0))


Rows = list[tuple[list[NDArray[np.float64]], int]]


def _dense(states: Weighted, shapes: Mapping[str, Sequence[int]], scale: float) -> tuple[list[str], Rows]:
    """Tensor names, and every camera's merged deltas in their order."""
    sums = [sum_states([(state, 1.0)], shapes, scale) for state, _ in states]
    names = sorted(sums[0])
    return names, [([one[name].dense64().numpy() for name in names], 1) for one in sums]


def _sums(names: Sequence[str], arrays: Sequence[NDArray[np.float64]]) -> Sums:
    found = {}
    for name, array in zip(names, arrays, strict=True):
        found[name] = DeltaSum(array.shape).add_dense(torch.from_numpy(np.asarray(array)), 1.0)
    return found


Find = Callable[..., Sums]

AGGREGATORS: dict[str, Find] = {
    "mean": _mean,
    "clipped": _clipped,
    "median": _median,
    "trimmed": _trimmed,
    "krum": _krum,
}
"""strategy.aggregator -> how it is found."""
