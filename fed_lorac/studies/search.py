"""What tuning tries: every point of a grid, or values drawn from ranges, and how long each is kept. Knows settings and
numbers; not files or runs."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from fed_lorac.errors import ConfigError
from fed_lorac.registry import load
from fed_lorac.seeds import stream

__all__ = ["HALVING", "KEPT", "SEARCHES", "Range", "Tuning", "Values", "points"]

HALVING = "successive-halving"
SEARCHES = ("grid", "random", HALVING)

KEPT = 3
"""Of so many runs successive halving lets one go on, so many times further."""

Values = Mapping[str, Sequence[object]]
"""Settings, and the values of each that are tried."""


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, evenly, or evenly in their logarithms; whole numbers where both are."""

    low: float
    high: float
    log: bool = False

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Tuning:
    """What is chosen for each arm and point of the grid before its runs: every arm has as many values to try, and the
    same ones, but where `arms` names others for it.

    The tuning runs have one seed, and `settings` on top: fewer rounds, say, and images that no table uses. `search`:
    every point of `grid`; or up to `budget` points, each once, drawn from `grid` (which are choices then) and `ranges`,
    of which "successive-halving" lets the better third go on each time (Jamieson and Talwalkar 2016, arXiv
    1502.07943).
    """

    grid: Values
    settings: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    search: str = "grid"
    budget: int = 0
    ranges: Mapping[str, Range] = field(default_factory=dict)
    arms: Mapping[str, Values] = field(default_factory=dict)

    def points(self, arm: str = "") -> list[dict[str, object]]:
        """The values to try in an arm; of none, those of arms that have none of their own.

        Raises:
            ConfigError: they are drawn, and Optuna is not installed.
        """
        return list(points({**self.grid, **self.arms.get(arm, {})})) if self.search == "grid" else self._drawn()

    def stages(self, rounds: int) -> tuple[int, ...]:
        """For runs of so many rounds, the rounds after which they are compared: the last is their end.

        >>> Tuning({}, search="successive-halving", budget=9).stages(20)
        (2, 6, 20)
        """
        most = min(_halvings(self.budget), _halvings(rounds)) if self.search == HALVING else 0
        return tuple(rounds // KEPT**k for k in range(most, -1, -1))

    def _drawn(self) -> list[dict[str, object]]:
        if find_spec("optuna") is None:
            raise ConfigError(
                f'tune.search = "{self.search}" draws through Optuna, which is not installed. '
                'Run pip install "fed-lorac[search]", or give [tune] a grid alone.'
            )
        seed = int(stream(self.seed, "tune").integers(2**31))
        verbosity = load("optuna.logging:get_verbosity")()
        load("optuna.logging:set_verbosity")(logging.WARNING)  # a study that is made in memory is no news
        asked = load("optuna:create_study")(sampler=load("optuna.samplers:RandomSampler")(seed=seed))
        load("optuna.logging:set_verbosity")(verbosity)
        from_ranges = {key: _distribution(its) for key, its in self.ranges.items()}
        choices = {
            key: load("optuna.distributions:IntDistribution")(0, len(its) - 1)
            for key, its in self.grid.items()
            if len(its) > 1
        }
        found = list[dict[str, object]]()
        for _ in range(self.budget):
            drawn = asked.ask({**choices, **from_ranges}).params
            chosen = {key: its[drawn.get(key, 0)] for key, its in self.grid.items()}
            point = chosen | {key: _short(drawn[key], its) for key, its in self.ranges.items()}
            if point not in found:  # of a choice among few; it would be the same run
                found.append(point)
        return found


def points(grid: Values) -> Iterator[dict[str, object]]:
    """Every combination of a grid's values, the last setting's running fastest."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _halvings(number: int) -> int:
    """How often a third of a number is taken until less than one is left."""
    return next(k for k in itertools.count() if number < KEPT ** (k + 1))


def _short(value: float, within: Range) -> float:
    """To four digits, for people, and for the name of a folder; within its range still."""
    if isinstance(value, int):
        return value
    return min(max(float(f"{value:.4g}"), within.low), within.high)


def _distribution(its: Range) -> object:
    whole = isinstance(its.low, int) and isinstance(its.high, int)
    kind = "IntDistribution" if whole else "FloatDistribution"
    return load(f"optuna.distributions:{kind}")(its.low, its.high, log=its.log)
