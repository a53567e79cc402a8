"""Aggregators: the mean of a round's deltas, one camera at a time, or a robust one that a few malicious cameras cannot
move far. Knows what one camera sent; not Flower's messages, frames or rounds.

All but the mean take deltas dense, and every camera alike; median, trimmed mean and Krum are Flower's own functions and
hold all deltas of a round at once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, add_state, sum_states
from fed_lorac.runtime.settings import check_settings, setting

__all__ = [
    "Aggregator",
    "ClientDelta",
    "ClippedMean",
    "DeltaMean",
    "Krum",
    "Mean",
    "Median",
    "TensorMean",
    "TrimmedMean",
    "weighted_mean",
]

Draw = Callable[[], torch.Generator]
Rows = list[tuple[list[NDArray[np.float64]], int]]


@dataclass(frozen=True)
class ClientDelta:
    """What one camera sent in a round.

    `weight` is its number of examples, above 0. `state` is what crossed the radio, decoded; `delta` is what the state
    says, as a delta of the network's tensors: factor pairs, whose products are multiplied by `scale` (alpha / r), or
    dense tensors. They are one and the same where a state is a delta already. `shapes`: tensor name -> shape.
    """

    camera: int
    weight: float
    state: State = field(repr=False)
    delta: State = field(repr=False)
    shapes: Mapping[str, Sequence[int]] = field(repr=False)
    scale: float = 1.0

    def sums(self) -> Sums:
        """The delta by tensor name, scale and all."""
        return sum_states([(self.delta, 1.0)], self.shapes, self.scale)


class DeltaMean:
    """`sum_k w_k delta_k / sum_k w_k`, camera by camera as they come; no total of the weights is needed beforehand.

    Sums are float64 where they are dense, and a fixed function of the order in which cameras are added.
    """

    def __init__(self) -> None:
        self._sums: Sums = {}
        self._weight = 0.0

    def add(self, one: ClientDelta, *, factor: float = 1.0) -> None:
        """One camera's delta; its tensors are not kept, save for stacked factors.

        `factor` multiplies the delta, and not its weight.
        """
        add_state(self._sums, one.delta, one.weight * factor, one.shapes, one.scale)
        self._weight += one.weight

    def add_sums(self, delta: Sums, weight: float) -> None:
        """One camera's delta, summed already, with its weight."""
        for name, total in delta.items():
            self._sums.setdefault(name, DeltaSum(total.shape)).add(total, weight)
        self._weight += weight

    def deltas(self) -> Sums:
        """The mean by tensor name. Ends the mean: the sums are scaled in place."""
        sums, self._sums = self._sums, {}
        return {name: total.scaled(1 / self._weight) for name, total in sums.items()}


class TensorMean:
    """The weighted mean of states, tensor by tensor.

    Of states that deltas are linear in, it says the mean of the deltas. Of A and B it is the naive average of FLoCoRA
    (arXiv 2406.14082), which is not the mean of B A.
    """

    def __init__(self) -> None:
        self._sums: Sums = {}
        self._weight = 0.0

    def add(self, one: ClientDelta) -> None:
        """One camera's state."""
        for key, value in one.state.items():
            self._sums.setdefault(key, DeltaSum(value.shape)).add_dense(value, one.weight)
        self._weight += one.weight

    def passing(self, deltas: Iterable[ClientDelta]) -> Iterator[ClientDelta]:
        """The same cameras one by one, each added as it passes."""
        return map(self._noted, deltas)

    def tensors(self) -> Sums:
        """The means by key of the states. Ends the mean: the sums are scaled in place."""
        sums, self._sums = self._sums, {}
        return {key: total.scaled(1 / self._weight) for key, total in sums.items()}

    def _noted(self, one: ClientDelta) -> ClientDelta:
        self.add(one)
        return one


def weighted_mean(deltas: Iterable[ClientDelta]) -> Sums:
    """The mean of the cameras' deltas by tensor name, weighted by their examples: FedAvg's (McMahan et al. 2017, arXiv
    1602.05629), exact for factors too, as their products are averaged."""
    mean = DeltaMean()
    for one in deltas:
        mean.add(one)
        del one  # else it would live on while the next one is decoded
    return mean.deltas()


class Aggregator(ABC):
    """How the deltas of a round become one. A subclass is a frozen dataclass whose fields are its settings."""

    source: ClassVar[str]
    """Where it is from: a paper with its arXiv id."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def elementwise(self) -> bool:
        """Whether it acts on each entry of dense deltas, so that no factors are left."""
        return False

    @property
    def least_cameras(self) -> int:
        """How many cameras' deltas it takes for it to do, and hold, what it promises."""
        return 1

    def refuses_cameras(self, cameras: int) -> str | None:
        """Why fewer than `least_cameras` are too few: the law, what came, the remedy. None: they are enough."""
        return None

    @abstractmethod
    def aggregate(self, deltas: Iterable[ClientDelta], draw: Draw) -> Sums:
        """One delta by tensor name, out of at least one camera's; `draw` gives the round's random stream, for noise."""


@dataclass(frozen=True)
class Mean(Aggregator):
    """The mean, weighted by examples, camera by camera as they come."""

    source = "FedAvg, arXiv 1602.05629"

    def aggregate(self, deltas: Iterable[ClientDelta], draw: Draw) -> Sums:
        """`sum_k w_k delta_k / sum_k w_k`."""
        return weighted_mean(deltas)


@dataclass(frozen=True)
class ClippedMean(Aggregator):
    """The mean of deltas of norm at most c, plus Gaussian noise of deviation `noise` c / n on each entry.

    McMahan et al. 2018, arXiv 1710.06963, section 3. One camera's influence is bounded, which is what differential
    privacy builds on; no privacy accountant is kept here.
    """

    source = "DP-FedAvg, arXiv 1710.06963"
    clip_norm: float = setting(1.0, "largest norm of a camera's delta, over all tensors; larger ones are cut", above=0)
    noise: float = setting(0.0, "deviation of the Gaussian noise, times clip_norm / cameras; 0: none", least=0)

    @property
    def elementwise(self) -> bool:
        """With noise."""
        return self.noise > 0

    def aggregate(self, deltas: Iterable[ClientDelta], draw: Draw) -> Sums:
        """`sum_k w_k min(1, c / ||delta_k||) delta_k / sum_k w_k + noise`."""
        mean, cameras = DeltaMean(), 0
        for one in deltas:
            norm = math.hypot(*(total.norm() for total in one.sums().values()))
            mean.add(one, factor=min(1.0, self.clip_norm / norm) if norm else 1.0)
            cameras += 1
            del one  # else it would live on while the next one is decoded
        found = mean.deltas()
        if self.noise:
            stream, deviation = draw(), self.noise * self.clip_norm / cameras
            for name in sorted(found):
                found[name].add_dense(torch.randn(found[name].shape, generator=stream, dtype=torch.float64), deviation)
        return found


@dataclass(frozen=True)
class Median(Aggregator):
    """Each entry's median over the cameras (Yin et al. 2018, definition 1)."""

    source = "coordinate-wise median, arXiv 1803.01498"
    elementwise = True

    def aggregate(self, deltas: Iterable[ClientDelta], draw: Draw) -> Sums:
        """By Flower's function."""
        from flwr.server.strategy.aggregate import aggregate_median  # noqa: PLC0415  (slow to import)

        names, rows = _dense(deltas)
        return _sums(names, aggregate_median(rows))


@dataclass(frozen=True)
class TrimmedMean(Aggregator):
    """Each entry's mean without the largest and the smallest (Yin et al. 2018, definition 2)."""

    source = "coordinate-wise trimmed mean, arXiv 1803.01498"
    elementwise = True
    trim_fraction: float = setting(
        0.1, "share of the cameras that is cut off at each end, for every entry", least=0, below=0.5
    )

    @property
    def least_cameras(self) -> int:
        """As many as have one to cut off at each end; a share of 0 cuts none, and is the mean."""
        if self.trim_fraction < 1e-12:
            return 10**12 if self.trim_fraction else 1  # more than any fleet has; floats count no further one by one
        return next(n for n in count(math.ceil(1 / self.trim_fraction)) if int(self.trim_fraction * n))

    def refuses_cameras(self, cameras: int) -> str | None:
        """A share that is less than one camera."""
        if cameras >= self.least_cameras:
            return None
        enough = math.ceil(100 / cameras) / 100
        return (
            "A trimmed mean cuts whole cameras off, rounded down, and cutting none it is the mean; came trim_fraction "
            f"= {self.trim_fraction:g} of {cameras} cameras a round. Let {self.least_cameras} or more take part"
            + (f", set trim_fraction = {enough:g} or more" if enough < 0.5 else "")
            + ", or use the mean."
        )

    def aggregate(self, deltas: Iterable[ClientDelta], draw: Draw) -> Sums:
        """By Flower's function."""
        from flwr.server.strategy.aggregate import aggregate_trimmed_avg  # noqa: PLC0415

        names, rows = _dense(deltas)
        return _sums(names, aggregate_trimmed_avg(rows, self.trim_fraction))


@dataclass(frozen=True)
class Krum(Aggregator):
    """The delta that is nearest to its n - f - 2 nearest ones, f cameras being malicious (Blanchard et al. 2017)."""

    source = "Krum, arXiv 1703.02757"
    malicious: int = setting(1, "number of malicious cameras that krum assumes", least=0)

    @property
    def least_cameras(self) -> int:
        """2f + 3: its proof needs 2f + 2 < n (Blanchard et al. 2017, proposition 4.2)."""
        return 2 * self.malicious + 3

    def refuses_cameras(self, cameras: int) -> str | None:
        """More malicious cameras than its proof allows."""
        if cameras >= self.least_cameras:
            return None
        most = (cameras - 3) // 2
        return (
            "Krum withstands f malicious cameras among 2 f + 3 or more; came malicious = "
            f"{self.malicious} of {cameras} cameras a round. Let {self.least_cameras} or more take part, "
            + (f"set malicious = {most}{' or less' * (most > 0)}, " if most >= 0 else "")
            + "or use the median."
        )

    def aggregate(self, deltas: Iterable[ClientDelta], draw: Draw) -> Sums:
        """By Flower's function."""
        from flwr.server.strategy.aggregate import aggregate_krum  # noqa: PLC0415

        names, rows = _dense(deltas)
        return _sums(names, aggregate_krum(rows, self.malicious, 0))


def _dense(deltas: Iterable[ClientDelta]) -> tuple[list[str], Rows]:
    """Tensor names, and every camera's dense deltas in their order."""
    sums = [one.sums() for one in deltas]
    names = sorted(sums[0])
    return names, [([one[name].dense64().numpy() for name in names], 1) for one in sums]


def _sums(names: Sequence[str], arrays: Sequence[NDArray[np.float64]]) -> Sums:
    found = {}
    for name, array in zip(names, arrays, strict=True):
        found[name] = DeltaSum(array.shape).add_dense(torch.from_numpy(np.asarray(array)), 1.0)
    return found
