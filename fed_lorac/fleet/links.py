"""Radio classes: how long a message is on the air; and simulated time: when a reply would arrive, and how long a round
takes. Knows links, bytes and seconds; reads no clock.

A round begins for all its cameras at once. A camera receives the server's message, trains, waits until it may
send, and sends; at the end it receives the round's update. Where rounds have a length, a reply that
arrives later is late: one that was begun was sent in vain, is billed and takes up the air; one that could not be begun
is not sent. So a camera whose duty cycle keeps it silent waits, and counts again once its air is free.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from fed_lorac import registry
from fed_lorac.errors import ConfigError

if TYPE_CHECKING:
    from fed_lorac.fleet.fleet import Camera

__all__ = [
    "LINKS",
    "Clock",
    "Link",
    "Trip",
    "air_time_s",
    "days_to_send",
    "downlink_time_s",
    "elapsed_s",
    "images_seen",
    "link",
    "send_s",
]

DAY_S = 86_400.0
_DUTY_WINDOW_S = 3_600.0  # a duty cycle is a share of any hour: ETSI EN 300 220-1


@dataclass(frozen=True)
class Link:
    """One radio class: physical rates, above 0, and the share of time it may transmit, 1 where nothing limits it.

    Raises:
        ConfigError: a rate that is not above 0, or a duty cycle that is not above 0 and at most 1.
    """

    name: str
    uplink_kbit_s: float
    downlink_kbit_s: float
    duty_cycle: float
    source: str

    def __post_init__(self) -> None:
        if not (self.uplink_kbit_s > 0 and self.downlink_kbit_s > 0 and 0 < self.duty_cycle <= 1):
            raise ConfigError(
                f"A link has rates above 0 kbit/s and a duty cycle above 0, at most 1; got {self}. Mend its numbers."
            )


_LORAWAN = "LoRaWAN Regional Parameters RP002, EU863-870, 125 kHz; duty cycle: ETSI EN 300 220-2, 868.0-868.6 MHz"

# Physical peak rates: an upper bound on speed. Packet headers, fragmentation and repetition come on top of the bytes.
LORAWAN_DR0 = Link("lorawan-dr0", 0.25, 0.25, 0.01, _LORAWAN)
LORAWAN_DR1 = Link("lorawan-dr1", 0.44, 0.44, 0.01, _LORAWAN)
LORAWAN_DR2 = Link("lorawan-dr2", 0.98, 0.98, 0.01, _LORAWAN)
LORAWAN_DR3 = Link("lorawan-dr3", 1.76, 1.76, 0.01, _LORAWAN)
LORAWAN_DR4 = Link("lorawan-dr4", 3.125, 3.125, 0.01, _LORAWAN)
LORAWAN_DR5 = Link("lorawan-dr5", 5.47, 5.47, 0.01, _LORAWAN)
NB_IOT_NB1 = Link("nb-iot-nb1", 62.0, 26.0, 1.0, "3GPP TS 36.306 Release 13, category NB1, multi-tone uplink")
NB_IOT_NB2 = Link("nb-iot-nb2", 159.0, 127.0, 1.0, "3GPP TS 36.306 Release 14, category NB2, uplink")
LTE_M = Link("lte-m", 375.0, 300.0, 1.0, "3GPP TS 36.306 Release 13, category M1, half duplex uplink")
LTE_CAT_1 = Link("lte-cat-1", 5_000.0, 10_000.0, 1.0, "3GPP TS 36.306 Release 8, category 1, uplink")
LTE_4G = Link("4g", 20_000.0, 60_000.0, 1.0, "typical LTE rates of a good cell, not a standard's peak")

LINKS: dict[str, Link] = {
    row.name: row
    for row in (
        *(LORAWAN_DR0, LORAWAN_DR1, LORAWAN_DR2, LORAWAN_DR3, LORAWAN_DR4, LORAWAN_DR5),
        *(NB_IOT_NB1, NB_IOT_NB2, LTE_M, LTE_CAT_1, LTE_4G),
    )
}
"""The built-in ones."""


@cache
def link(name: str) -> Link:
    """The radio class called `name`, built in or somebody else's; ConfigError where there is none."""
    found: Link = registry.LINKS.make(name)
    return found


def air_time_s(n_bytes: int, over: Link) -> float:
    """Seconds of transmission: 8 bits a byte over the link's rate (1 kbit = 1,000 bit)."""
    return 8 * n_bytes / (1_000 * over.uplink_kbit_s)


def downlink_time_s(n_bytes: int, over: Link) -> float:
    """Seconds of reception; the sender's duty cycle is not counted."""
    return 8 * n_bytes / (1_000 * over.downlink_kbit_s)


def send_s(n_bytes: int, over: Link) -> float:
    """Seconds from a message's first bit to its last: in one piece within an hour's share of a duty cycle, and longer
    ones hour by hour. The silence that the duty cycle demands afterwards is in `elapsed_s`."""
    air_s, share_s = air_time_s(n_bytes, over), over.duty_cycle * _DUTY_WINDOW_S
    if over.duty_cycle == 1:
        return air_s
    hours = max(0, math.ceil(air_s / share_s) - 1)
    return hours * _DUTY_WINDOW_S + air_s - hours * share_s


def elapsed_s(n_bytes: int, over: Link) -> float:
    """Seconds on the clock: the air time stretched by the silence that the duty cycle demands."""
    return air_time_s(n_bytes, over) / over.duty_cycle


def days_to_send(n_bytes: int, over: Link) -> float:
    """Days on the clock until `n_bytes` are sent, the duty cycle kept."""
    return elapsed_s(n_bytes, over) / DAY_S


@dataclass(frozen=True)
class Trip:
    """One camera's part in a round, in simulated seconds: what it receives, its training, and when its reply is
    there, from the beginning of the round. `sent` is false where it could not begin in time."""

    downlink_bytes: int
    compute_s: float
    reply_s: float
    late: bool
    sent: bool


class Clock:
    """Where simulated time stands, and until when each camera's air is taken."""

    def __init__(self, cameras: "Sequence[Camera]", compute_s: Sequence[float], round_s: float = 0.0) -> None:
        """Set the clock to 0.

        Args:
            cameras: the fleet's, in the order of their ids.
            compute_s: how long each of them trains in a round.
            round_s: seconds after which a reply is late; 0: none is.
        """
        self._cameras, self._compute_s, self._round_s = cameras, compute_s, round_s
        self.now_s = 0.0
        self.air_free_s: dict[int, float] = {}
        self.trips: dict[int, Trip] = {}

    def trip(self, camera_id: int, downlink_bytes: int, uplink_bytes: int) -> Trip:
        """A camera was asked with so many bytes and answers with so many: once a round."""
        camera = self._cameras[camera_id]
        over, compute_s = link(camera.link), self._compute_s[camera_id]
        ready_s = self.now_s + downlink_time_s(downlink_bytes, over) + compute_s
        begins_s = max(ready_s, self.air_free_s.get(camera_id, 0.0))
        arrives_s = begins_s + send_s(uplink_bytes, over)
        ends_s = self.now_s + (self._round_s or float("inf"))
        if sent := begins_s <= ends_s:
            self.air_free_s[camera_id] = begins_s + elapsed_s(uplink_bytes, over)
        found = Trip(downlink_bytes, compute_s, arrives_s - self.now_s, arrives_s > ends_s, sent)
        self.trips[camera_id] = found
        return found

    def end(self, counted: Iterable[int], downlink_bytes: Mapping[int, int]) -> float:
        """Simulated seconds of the round: the slowest counted camera's, the update heard; the length of a round where
        none counted. `downlink_bytes` are all that each camera heard in it. A new round begins."""
        took_s = [self._heard_s(k, downlink_bytes.get(k, 0)) for k in counted if k in self.trips]
        round_s = max(took_s, default=self._round_s)
        self.now_s, self.trips = self.now_s + round_s, {}
        return round_s

    def _heard_s(self, camera: int, downlink_bytes: int) -> float:
        trip, over = self.trips[camera], link(self._cameras[camera].link)
        return trip.reply_s + downlink_time_s(max(0, downlink_bytes - trip.downlink_bytes), over)

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps of it."""
        return {"now_s": self.now_s, "air_free_s": {str(k): s for k, s in self.air_free_s.items()}}

    def restore(self, now_s: float = 0.0, air_free_s: Mapping[str, float] | None = None) -> None:
        """Go on where `state` says another stood."""
        self.now_s, self.air_free_s = now_s, {int(k): s for k, s in (air_free_s or {}).items()}


def images_seen(images: int, *, batch_size: int, epochs: int, steps: int) -> int:
    """How many images a round's training takes a camera through, repeats counted; `steps` 0: by epochs."""
    each = -(-images // batch_size)  # batches an epoch, the last of them what is left
    whole, rest = divmod(steps or epochs * each, each)
    return whole * images + min(images, rest * batch_size)
