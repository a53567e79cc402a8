"""Weather over time: what a camera stands in, round by round. Knows rounds and severities; not images or networks.

Every schedule is a pure function of the settings, the camera and the round, and none depends on how many cameras there
are. Severity 0 is clear air, and round 0 is when the base is measured, before the first.

- constant: the camera's own weather, always.
- front: it reaches camera k after `floor(lag k)` rounds, stands over it for `period` rounds, rising to the camera's own
  severity and falling again, and is gone. Before and after, the air is clear.
- daily: all cameras go through a cycle of `period` rounds together, from clear air to their own severity and back.
- walk: from its own weather each camera goes its own way: in a round its severity stays or moves by 1, between clear
  air and the worst of the fleet, and once in `period` rounds on average its corruption becomes a neighbour in the list.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fed_lorac.seeds import stream

__all__ = ["CLEAR", "SCHEDULES", "Climate", "Weather", "weather"]

CLEAR = 0
_PLATEAU = 1.5  # a rise this steep reaches the top in a whole round, whatever the period


@dataclass(frozen=True)
class Weather:
    """A corruption and its severity, 1 to 5; 0: clear air, whatever the corruption."""

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
    return Weather(names[at % len(names)], severity)


SCHEDULES: dict[str, Callable[[Climate, int, Weather, int], Weather]] = {
    "constant": _constant,
    "front": _front,
    "daily": _daily,
    "walk": _walk,
}
"""fleet.schedule -> its function."""
