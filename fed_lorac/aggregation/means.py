"""Weighted means over cameras, one camera at a time: of deltas, and of every tensor apart. Knows what one camera sent;
not Flower, frames or rounds."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, add_state, sum_states

__all__ = ["ClientDelta", "DeltaMean", "TensorMean", "weighted_mean"]


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
    """The weighted mean of every tensor of the states apart, whatever it stands for.

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
