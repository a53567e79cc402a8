"""The fleet: each camera's weather, and the rounds in which it takes part. Says camera, never tensor.

Rounds: each camera draws a number from the round's stream and, of those that can be reached, the lowest `per_round`
take part, so that one camera more takes at most one other's place. Who is away, and whose reply is lost, is drawn from
two streams more. Cameras whose weather is held out are never drawn: they hear every update, and are measured.

Weather over time: every schedule is a pure function of the settings, the camera and the round, and none depends on how
many cameras there are. Severity 0 is clear air, and round 0 is when the base is measured, before the first.

A camera without a corruption ("none") sees its images as they are, severity 0, whatever the schedule.

- constant: the camera's own weather, always.
- front: it reaches camera k after `floor(lag k)` rounds, stands over it for `period` rounds, rising to the camera's own
  severity and falling again, and is gone. Before and after, the air is clear.
- daily: all cameras go through a cycle of `period` rounds together, from clear air to their own severity and back.
- walk: from its own weather each camera goes its own way: in a round its severity stays or moves by 1, between clear
  air and the worst of the fleet, and once in `period` rounds on average its corruption becomes a neighbour in the list.
  While that is "none", its severity goes on unseen.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fed_lorac.radio.link import Link
from fed_lorac.seeds import stream

__all__ = ["AS_IT_IS", "CLEAR", "SCHEDULES", "Camera", "Climate", "Fleet", "Indices", "Picked", "Weather", "weather"]

Indices = NDArray[np.int64]

CLEAR = 0
AS_IT_IS = "none"
"""What a camera's corruption is called that has none."""
_PLATEAU = 1.5  # a rise this steep reaches the top in a whole round, whatever the period


@dataclass(frozen=True)
class Weather:
    """A corruption and its severity, 1 to 5; 0: the images as they are, whatever the corruption."""

    corruption: str
    severity: int


@dataclass(frozen=True)
class Climate:
    """How the weather of a fleet goes: a schedule's name, its settings, and all weathers that are about.

    `period` is in rounds, `lag` in rounds from one camera to the next; `corruptions` and `worst` bound the walk.
    """

    schedule: str = "constant"
    period: int = 6
    lag: float = 1.0
    corruptions: tuple[str, ...] = ()
    worst: int = 5
    seed: int = 0


def weather(climate: Climate, camera: int, own: Weather, round: int) -> Weather:
    """The weather over `camera`, whose own is `own`, in `round` (from 0)."""
    return SCHEDULES[climate.schedule](climate, camera, own, round)


def _constant(climate: Climate, camera: int, own: Weather, round: int) -> Weather:
    return own


def _front(climate: Climate, camera: int, own: Weather, round: int) -> Weather:
    middle = (climate.period + 1) / 2  # of the rounds 1 to period; clear at both ends
    here = round - math.floor(climate.lag * camera)
    return _scaled(own, 1 - abs(here - middle) / middle)


def _daily(climate: Climate, camera: int, own: Weather, round: int) -> Weather:
    hour = round % climate.period / climate.period
    return _scaled(own, (1 - math.cos(2 * math.pi * hour)) / 2)


def _scaled(own: Weather, share: float) -> Weather:
    """The own weather at a share of its severity, rounded to the nearest."""
    return Weather(own.corruption, math.floor(own.severity * min(1.0, max(0.0, _PLATEAU * share)) + 0.5))


def _walk(climate: Climate, camera: int, own: Weather, round: int) -> Weather:
    names = climate.corruptions or (own.corruption,)
    severity, at = own.severity, names.index(own.corruption)
    for move, change in stream(climate.seed, "weather walk", camera).random((round, 2)):
        severity = min(climate.worst, max(CLEAR, severity + math.floor(3 * move) - 1))
        if change * climate.period < 1:  # half of the changes go one way along the list, half the other
            at += 1 if 2 * change * climate.period < 1 else -1
    name = names[at % len(names)]
    return Weather(name, CLEAR if name == AS_IT_IS else severity)


SCHEDULES: dict[str, Callable[[Climate, int, Weather, int], Weather]] = {
    "constant": _constant,
    "front": _front,
    "daily": _daily,
    "walk": _walk,
}
"""fleet.schedule -> its function."""


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera: its weather, its images by index into the data set (ascending), the share of each class, its link,
    how many times as fast as the slowest processor it trains, and its name where the data set has named it.

    `corruption` and `severity` are its own weather: what it stands in round by round says `Fleet.weather`.
    """

    id: int
    corruption: str
    severity: int
    train: Indices
    evaluation: Indices
    label_mix: Mapping[str, float]
    link: str
    speed: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        for indices in (self.train, self.evaluation):
            indices.setflags(write=False)


class Picked(Set[int]):
    """Cameras by number, where `mask` says so: of a million, a megabyte."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.mask.setflags(write=False)

    def __contains__(self, camera: object) -> bool:
        return isinstance(camera, int) and 0 <= camera < len(self.mask) and bool(self.mask[camera])

    def __iter__(self) -> Iterator[int]:
        return map(int, np.flatnonzero(self.mask))

    def __len__(self) -> int:
        return int(np.count_nonzero(self.mask))

    @classmethod
    def _from_iterable(cls, cameras: Iterable[int]) -> frozenset[int]:  # type: ignore[override]
        return frozenset(cameras)


@dataclass(frozen=True, eq=False)
class Fleet:
    """All cameras, `cameras[i].id == i`, which are sampled in each round, each of their links by its name,
    and the watts of one that trains.

    `overlapping`: whether cameras share images; each then has as many as any other. `period`: after how many cameras
    their own weathers come again in the same order; 0: not known. `link_places`: of each camera the place of its link
    among `links`. `held_out`: of each camera whether it is never asked to train.
    """

    cameras: Sequence[Camera]
    per_round: int
    seed: int
    availability: float = 1.0
    dropout: float = 0.0
    climate: Climate = field(default_factory=Climate)
    links: Mapping[str, Link] = field(default_factory=dict)
    compute_watt: float = 0.0
    overlapping: bool = False
    period: int = 0
    link_places: Indices = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)
    held_out: NDArray[np.bool_] | None = field(default=None, repr=False)

    def weather(self, camera: int, round: int) -> Weather:
        """This camera's weather in `round`; round 0 is before the first."""
        own = self.cameras[camera]
        return weather(self.climate, camera, Weather(own.corruption, own.severity), round)

    @property
    def corruptions(self) -> tuple[str, ...]:
        """Every corruption that some camera may see."""
        own = self.own_corruptions
        about = self.climate.corruptions if self.climate.schedule == "walk" else own
        return tuple(name for name in about if name != AS_IT_IS)

    @property
    def own_corruptions(self) -> tuple[str, ...]:
        """Each corruption that is some camera's own, in the order in which cameras first have it."""
        return tuple(dict.fromkeys(camera.corruption for camera in self._in_a_period))

    @property
    def of_each_size(self) -> Sequence[Camera]:
        """Cameras with every number of images that there is: where all have as many, the first."""
        return self.cameras[:1] if self.overlapping else self.cameras

    @property
    def most_images(self) -> int:
        """The most images that a camera adapts on."""
        return max(len(camera.train) for camera in self.of_each_size)

    @property
    def sees_clear(self) -> bool:
        """Whether any camera may come to see its images as they are."""
        return self.changing or any(camera.severity == CLEAR for camera in self._in_a_period)

    @property
    def _in_a_period(self) -> Sequence[Camera]:
        """Cameras with every weather that there is."""
        return self.cameras[: self.period or len(self.cameras)]

    @property
    def changing(self) -> bool:
        """Whether any camera's weather may differ from round to round."""
        return self.climate.schedule != "constant"

    def drawn(self, round: int) -> tuple[int, ...]:
        """The ids of the cameras that are asked in `round`: those with most images first, so that no one waits long
        for the last; equals ascending."""
        away = self.away(round)
        draws = stream(self.seed, "sample", round).random(len(self.cameras))
        not_asked = away.mask if self.held_out is None else away.mask | self.held_out
        able = len(draws) - int(np.count_nonzero(not_asked))
        here = _lowest(np.where(not_asked, np.inf, draws), min(self.per_round, able))
        return tuple(sorted(here, key=lambda i: (-len(self.cameras[i].train), i)))

    def away(self, round: int) -> Picked:
        """The cameras that cannot be reached in `round`: they are neither asked nor told its update."""
        return _hit_by_chance(self.seed, "availability", round, len(self.cameras), 1 - self.availability)

    def dropped(self, round: int) -> Picked:
        """The cameras whose reply would be lost in `round`, asked or not."""
        return _hit_by_chance(self.seed, "dropout", round, len(self.cameras), self.dropout)


@lru_cache(maxsize=4)
def _hit_by_chance(seed: int, name: str, round: int, cameras: int, chance: float) -> Picked:
    """Kept for the blocks of a round, each of which asks."""
    return Picked(stream(seed, name, round).random(cameras) < chance)


def _lowest(draws: NDArray[np.float64], count: int) -> list[int]:
    """The places of the `count` lowest draws."""
    return [int(i) for i in np.argpartition(draws, count - 1)[:count]] if count else []
