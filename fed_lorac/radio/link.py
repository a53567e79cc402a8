"""A link: what one message costs on it. Knows bytes, seconds, watts and duty cycles; not what is in a message.

A duty cycle is a share of any hour (ETSI EN 300 220-1): what fits into an hour's share goes in one piece, and what is
longer goes hour by hour. The silence that is owed afterwards is in `busy_s`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import ClassVar

from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import check_settings, setting

__all__ = ["DOWNLINKS", "Crossing", "Link", "crossed", "fragments", "heard", "spread_s"]

DOWNLINKS = ("unicast", "multicast")
"""How an update goes down: a copy to each camera, or once for all cameras of a link."""

_DUTY_WINDOW_S = 3_600.0


@dataclass(frozen=True)
class Crossing:
    """One message's way over a link, as the camera's radio has it; all 0 where there is nothing to send.

    Args:
        packets: packets that carry the message, once each.
        bytes_on_air: all bytes that cross for it, both ways: headers, acknowledgements, signalling, what is sent again.
        transmit_s: how long the camera transmits.
        receive_s: how long its receiver is on.
        takes_s: from the beginning until the message is there, with the silence that it has to keep in between.
        busy_s: from the beginning until it may transmit again.
        station_s: how long the base station transmits to this camera.
        energy_j: what the camera's radio takes beyond `Link.standing_w`; NaN where the link's power is not known.
        arrives: probability that the whole message is there at the end.
    """

    packets: int = 0
    bytes_on_air: int = 0
    transmit_s: float = 0.0
    receive_s: float = 0.0
    takes_s: float = 0.0
    busy_s: float = 0.0
    station_s: float = 0.0
    energy_j: float = 0.0
    arrives: float = 1.0

    def __add__(self, other: "Crossing") -> "Crossing":
        """One after the other: both have to arrive."""
        mine, its = (vars(one) for one in (self, other))
        return Crossing(**{name: mine[name] + its[name] for name in mine} | {"arrives": self.arrives * other.arrives})


@dataclass(frozen=True)
class Link:
    """One radio class: physical rates, above 0, and the share of time that it may transmit, 1 where nothing limits it.

    As it is, a message crosses at these rates without packets or headers, which bounds its time from below. A class
    that extends it knows better. `table` is the name of its settings in a config, `[fleet.TABLE]`; "" for none.

    Raises:
        ConfigError: a rate that is not above 0, a duty cycle that is not above 0 and at most 1, or multicast where
            the link has none.
    """

    name: str
    uplink_kbit_s: float
    downlink_kbit_s: float
    duty_cycle: float
    source: str
    transmit_w: float = math.nan
    receive_w: float = math.nan
    sleep_w: float = math.nan
    downlink: str = setting(
        "unicast", "how an update goes down: a copy to each camera, or once for all of this link", choices=DOWNLINKS
    )
    repair_share: float = setting(
        0.0,
        "share of cameras that ask for a multicast update again, each alone; at least those who lose a packet of it",
        least=0,
        most=1,
    )

    table: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_settings(self)
        if not (self.uplink_kbit_s > 0 and self.downlink_kbit_s > 0 and 0 < self.duty_cycle <= 1):
            raise ConfigError(
                f"A link has rates above 0 kbit/s and a duty cycle above 0, at most 1; got {self.told()}. Correct its "
                "numbers."
            )
        if self.multicasts and (why := self.no_multicast):
            raise ConfigError(f'{self.name} has no multicast: {why}. Set its downlink to "unicast".')
        if self.repair_share and not self.multicasts:
            raise ConfigError(
                f"A repair_share is of cameras that hear an update by multicast; {self.name} has {self.repair_share:g} "
                'under downlink = "unicast". Remove it, or set downlink = "multicast".'
            )

    @property
    def loses(self) -> bool:
        """Whether a message may be lost."""
        return self.up(1).arrives < 1 or self.down(1).arrives < 1

    @property
    def multicasts(self) -> bool:
        """Whether an update goes down once for all cameras."""
        return self.downlink == "multicast"

    @property
    def no_multicast(self) -> str:
        """Why it cannot; empty where it can."""
        return ""

    @property
    def station_duty_cycle(self) -> float:
        """The share of time that a base station may send messages down; as the camera, where nothing else is known."""
        return self.duty_cycle

    def told(self) -> str:
        """Its fields, without its source."""
        return ", ".join(f"{one.name} {getattr(self, one.name)}" for one in fields(self) if one.name != "source")

    @property
    def standing_w(self) -> float:
        """Watts while no message crosses."""
        return self.sleep_w

    def up(self, n_bytes: int) -> Crossing:
        """A message of so many bytes from camera to server."""
        air_s = 8 * n_bytes / (1_000 * self.uplink_kbit_s)
        return Crossing(
            packets=min(1, n_bytes),
            bytes_on_air=n_bytes,
            transmit_s=air_s,
            takes_s=spread_s(air_s, self.duty_cycle),
            busy_s=air_s / self.duty_cycle,
            energy_j=air_s * self.transmit_w if n_bytes else 0.0,
        )

    def down(self, n_bytes: int) -> Crossing:
        """A message from server to camera; the silence that the base station owes is not in it."""
        air_s = 8 * n_bytes / (1_000 * self.downlink_kbit_s)
        return Crossing(
            packets=min(1, n_bytes),
            bytes_on_air=n_bytes,
            receive_s=air_s,
            takes_s=air_s,
            busy_s=air_s,
            station_s=air_s,
            energy_j=air_s * self.receive_w if n_bytes else 0.0,
        )

    def multicast(self, n_bytes: int) -> Crossing:
        """A message from server to all cameras at once, as one of them hears it: nobody answers, nothing goes again."""
        return self.down(n_bytes)

    def repair(self, n_bytes: int) -> Crossing:
        """The same message to one camera that asks for it again."""
        return self.down(n_bytes)

    def repaired(self, n_bytes: int) -> float:
        """Share of cameras that ask for a multicast message of so many bytes again."""
        return max(self.repair_share, 1 - heard(self, n_bytes).arrives) if n_bytes else 0.0


@lru_cache(maxsize=4096)
def crossed(over: Link, n_bytes: int, *, up: bool) -> Crossing:
    """What a message of so many bytes takes on a link; kept, as sizes repeat from camera to camera and by round."""
    return over.up(n_bytes) if up else over.down(n_bytes)


@lru_cache(maxsize=4096)
def heard(over: Link, n_bytes: int, *, again: bool = False) -> Crossing:
    """What a multicast message takes on a link, as one camera hears it, or asks for it `again` alone; kept likewise."""
    return over.repair(n_bytes) if again else over.multicast(n_bytes)


def spread_s(air_s: float, duty_cycle: float) -> float:
    """Seconds from the first bit to the last of what is on the air so long, the duty cycle kept."""
    if duty_cycle == 1:
        return air_s
    share_s = duty_cycle * _DUTY_WINDOW_S
    hours = max(0, math.ceil(air_s / share_s) - 1)
    return hours * _DUTY_WINDOW_S + air_s - hours * share_s


def fragments(n_bytes: int, most: int, header: int = 0) -> Iterator[tuple[int, int]]:
    """How a message is cut: (how many packets, bytes in each), the last one by itself.

    What fits into one packet of `most` bytes needs no fragment's header; else each packet has one of `header` bytes.
    """
    if 0 < n_bytes <= most:
        yield 1, n_bytes
    elif n_bytes:
        whole, rest = divmod(n_bytes, most - header)
        yield whole, most
        if rest:
            yield 1, rest + header
