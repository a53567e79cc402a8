"""An adapter along a few drawn directions: where another adapter's trained numbers stand is said by one number for each
direction. Knows networks and states; not how a camera finds its way, rounds or frames.

theta = theta_0 + sum_j c_j z_j: theta are the d numbers that the other adapter trains, z_1 ... z_K directions of length
1 that both ends draw from a seed, c the state. It is linear in c where that adapter is linear, so the mean of states
says the mean of what cameras did. DeComFL (Li et al. 2024, arXiv 2405.15861) and FedKSeed (Qin et al. 2023, arXiv
2312.06353) send no more than that.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self, cast

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import State, ToDelta
from fed_lorac.adapters.misfits import refuse_misfits
from fed_lorac.adapters.plain import RATES_NOTE
from fed_lorac.errors import FactorError
from fed_lorac.seeds import torch_stream

__all__ = ["COORDINATES_KEY", "DIRECTIONS_NOTE", "Along", "Directions"]

COORDINATES_KEY = "coordinates"
"""The tensor of a state that says how far it is along each direction, (K,)."""

DIRECTIONS_NOTE = "_directions"
"""The attribute of a network with the `Directions` that it may move along."""


@dataclass(frozen=True)
class Axes:
    """Trained tensors, by name, in the network's order: their shapes, and how much longer than others each is in a
    direction."""

    shapes: Mapping[str, tuple[int, ...]]
    lengths: Mapping[str, float]

    @property
    def numbers(self) -> int:
        """d."""
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Directions:
    """K directions in d numbers: +1 and -1 over sqrt(d), drawn (SPSA, Spall 1992); a tensor that learns f times as fast
    as `local.lr` has them sqrt(f) times as long."""

    seed: int
    count: int
    axes: Axes = field(repr=False)

    def one(self, place: int) -> dict[str, Tensor]:
        """The direction of this place, float32, by tensor."""
        return self._named(self._signs[place].float())

    def spread(self, coordinates: Float[Tensor, " k"]) -> dict[str, Tensor]:
        """sum_j c_j z_j, by tensor."""
        flat = torch.zeros(self.axes.numbers, dtype=torch.float64)
        for much, row in zip(coordinates.tolist(), self._signs, strict=True):
            flat.add_(row, alpha=much)
        return self._named(flat)

    def project(self, state: State) -> Float[Tensor, " k"]:
        """The c whose sum is nearest to a state: its own, where the state is such a sum. Least squares, in float64."""
        gram = torch.zeros(self.count, self.count, dtype=torch.float64)
        found = torch.zeros(self.count, dtype=torch.float64)
        for name, signs in zip(self.axes.shapes, self._signs.split(self._sizes, dim=1), strict=True):
            z = signs.double() * self._length(name)
            gram += z @ z.T
            found += z @ state[name].flatten().double()
        inverse: Tensor = torch.linalg.pinv(gram, hermitian=True)
        return (inverse @ found).float()

    @property
    def _sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.axes.shapes.values()]

    @property
    def _signs(self) -> Int8[Tensor, "k d"]:
        return _drawn_signs(self.seed, self.count, self.axes.numbers)

    def _length(self, name: str) -> float:
        return self.axes.lengths[name] / math.sqrt(self.axes.numbers)

    def _named(self, flat: Float[Tensor, " d"]) -> dict[str, Tensor]:
        parts = zip(self.axes.shapes.items(), flat.split(self._sizes), strict=True)
        return {name: (part * self._length(name)).view(shape).float() for (name, shape), part in parts}


@lru_cache(maxsize=2)
def _drawn_signs(seed: int, count: int, numbers: int) -> Int8[Tensor, "k d"]:
    """A row for each direction, from a stream of its own."""
    rows = [torch.randint(0, 2, (numbers,), generator=torch_stream(seed, "direction", j)) for j in range(count)]
    return torch.stack([(2 * row - 1).to(torch.int8) for row in rows])


@dataclass(frozen=True)
class Along(Adapter):
    """Another adapter, `inner`, moved along `count` directions. State: "coordinates" (count,).

    Its network must move along them alone (`training.objectives.forward_passes`): what is beside them is not in the
    state. The directions are drawn with the rest when it is attached.
    """

    source = "DeComFL, arXiv 2405.15861; FedKSeed, arXiv 2312.06353"
    state_is_delta = False

    inner: Adapter
    count: int
    axes: Axes | None = field(default=None, compare=False, repr=False)  # once fitted

    @property
    def linear(self) -> bool:
        """As the other adapter's delta is in its own state."""
        return self.inner.linear

    @property
    def trains_classifier(self) -> bool:  # type: ignore[override]
        """As the other."""
        return bool(getattr(self.inner, "train_classifier", self.inner.trains_classifier))

    @property
    def adapts_to_batch(self) -> bool:  # type: ignore[override]
        """As the other."""
        return self.inner.adapts_to_batch

    @property
    def formula(self) -> str:
        """K, whatever the other's."""
        return "K"

    @property
    def scale(self) -> float:
        """The other's."""
        return self.inner.scale

    @property
    def rank(self) -> int:
        """The other's; AttributeError where it has none."""
        return cast(int, self.inner.rank)  # type: ignore[attr-defined]

    @property
    def reconstruction_error(self) -> float | None:
        """The other's."""
        return getattr(self.inner, "reconstruction_error", None)

    def fit_to(self, base: nn.Module) -> Self:
        """With the other one fitted, and the tensors that it trains. FactorError where directions are more than its
        numbers, or where a state of it does not begin at zero."""
        if self.axes is not None:
            return self
        inner, twin = self.inner.fit_to(base), copy.deepcopy(base)
        inner.attach(twin, torch_stream(0, "size"))
        fresh, rates = inner.read(twin), getattr(twin, RATES_NOTE, {})
        trained = {name: p.shape for name, p in twin.named_parameters() if p.requires_grad}
        if {name: t.shape for name, t in fresh.items()} != trained or any(t.any() for t in fresh.values()):
            raise FactorError(
                "Directions are drawn among an adapter's trained numbers, of which its state says the change; "
                f"{type(inner).__name__}'s says another thing. Choose another."
            )
        axes = Axes({n: tuple(s) for n, s in trained.items()}, {n: math.sqrt(rates.get(n, 1.0)) for n in trained})
        if axes.numbers < self.count:
            raise FactorError(
                f"There are as many directions as numbers at most; came {self.count} for the {axes.numbers} numbers "
                f"that {type(inner).__name__} trains. Draw fewer, or train all of them as they are."
            )
        return replace(self, inner=inner, axes=axes)

    def prepare(self, model: nn.Module) -> None:
        """As the other."""
        self.inner.prepare(model)

    def with_frozen_basis(self) -> Self:
        """It is one: nothing that is drawn is trained."""
        return self

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """The other one, and a note on the network of the directions."""
        fitted = self.fit_to(model)
        seed = _seed(generator)
        fitted.inner.attach(model, torch_stream(seed, "inner"))
        vars(model).pop(RATES_NOTE, None)  # directions have them
        setattr(model, DIRECTIONS_NOTE, fitted._directions(seed))

    @torch.no_grad()
    def restart(self, model: nn.Module, weights: State, generator: torch.Generator) -> None:
        """Other weights, all drawn again; this adapter is fitted."""
        seed = _seed(generator)
        self.inner.restart(model, weights, torch_stream(seed, "inner"))
        vars(model).pop(RATES_NOTE, None)
        setattr(model, DIRECTIONS_NOTE, self._directions(seed))

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """How far the network is along each direction."""
        directions: Directions = getattr(model, DIRECTIONS_NOTE)
        return {COORDINATES_KEY: directions.project(self.inner.read(model))}

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put the network there; FactorError on a misfit."""
        refuse_misfits(state, {COORDINATES_KEY: torch.empty(self.count)})
        directions: Directions = getattr(model, DIRECTIONS_NOTE)
        self.inner.load(model, directions.spread(state[COORDINATES_KEY]))

    def detach(self, model: nn.Module) -> None:
        """The other one off."""
        delattr(model, DIRECTIONS_NOTE)
        self.inner.detach(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """As the other one."""
        plain = self.inner.merge(model)
        vars(plain).pop(DIRECTIONS_NOTE, None)
        return plain

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """What the other one makes of where the directions lead; other tensors pass."""
        fitted, seed = self.fit_to(base), _seed(generator)
        directions, said = fitted._directions(seed), fitted.inner.to_delta(base, torch_stream(seed, "inner"))

        def to_delta(state: State) -> State:
            beside = {name: tensor for name, tensor in state.items() if name != COORDINATES_KEY}
            return said({**directions.spread(state[COORDINATES_KEY]), **beside})

        return to_delta

    def _directions(self, seed: int) -> Directions:
        if self.axes is None:
            raise AssertionError("directions are of a fitted adapter")
        return Directions(seed, self.count, self.axes)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
