"""Radio classes: how long a message occupies the air. Knows bits and seconds; not messages, cameras or rounds."""

import math
from dataclasses import dataclass

from fed_lorac.errors import ConfigError
from fed_lorac.runtime.near import did_you_mean

__all__ = ["LINKS", "Link", "air_time_s", "days_to_send", "downlink_time_s", "elapsed_s", "link", "send_s"]

DAY_S = 86_400.0
_DUTY_WINDOW_S = 3_600.0  # a duty cycle is a share of any hour: ETSI EN 300 220-1


@dataclass(frozen=True)
class Link:
    """One radio class. `duty_cycle` is the share of time it may transmit, 1 where nothing limits it."""

    name: str
    uplink_kbit_s: float
    downlink_kbit_s: float
    duty_cycle: float
    source: str


_LORAWAN = "LoRaWAN Regional Parameters RP002, EU863-870, 125 kHz; duty cycle: ETSI EN 300 220-2, 868.0-868.6 MHz"

# Physical peak rates: an upper bound on speed. Packet headers, fragmentation and repetition come on top of the bytes.
LINKS: dict[str, Link] = {
    row.name: row
    for row in (
        Link("lorawan-dr0", 0.25, 0.25, 0.01, _LORAWAN),
        Link("lorawan-dr1", 0.44, 0.44, 0.01, _LORAWAN),
        Link("lorawan-dr2", 0.98, 0.98, 0.01, _LORAWAN),
        Link("lorawan-dr3", 1.76, 1.76, 0.01, _LORAWAN),
        Link("lorawan-dr4", 3.125, 3.125, 0.01, _LORAWAN),
        Link("lorawan-dr5", 5.47, 5.47, 0.01, _LORAWAN),
        Link("nb-iot-nb1", 62.0, 26.0, 1.0, "3GPP TS 36.306 Release 13, category NB1, multi-tone uplink"),
        Link("nb-iot-nb2", 159.0, 127.0, 1.0, "3GPP TS 36.306 Release 14, category NB2, uplink"),
        Link("lte-m", 375.0, 300.0, 1.0, "3GPP TS 36.306 Release 13, category M1, half duplex uplink"),
        Link("lte-cat-1", 5_000.0, 10_000.0, 1.0, "3GPP TS 36.306 Release 8, category 1, uplink"),
        Link("4g", 20_000.0, 60_000.0, 1.0, "typical LTE rates of a good cell, not a standard's peak"),
    )
}


def link(name: str) -> Link:
    """The radio class called `name`; ConfigError, naming one that is near, when there is none."""
    if name in LINKS:
        return LINKS[name]
    raise ConfigError(f"A link must be one of {', '.join(LINKS)}; got {name!r}.{did_you_mean(str(name), LINKS)}")


def air_time_s(n_bytes: int, over: Link) -> float:
    """Seconds of transmission: 8 bits a byte over the link's rate (1 kbit = 1,000 bit)."""
    return 8 * n_bytes / (1_000 * over.uplink_kbit_s)


def downlink_time_s(n_bytes: int, over: Link) -> float:
    """Seconds of reception; what silence the other end owes is not counted."""
    return 8 * n_bytes / (1_000 * over.downlink_kbit_s)


def send_s(n_bytes: int, over: Link) -> float:
    """Seconds from a message's first bit to its last: in one piece within an hour's share of a duty cycle, and longer
    ones hour by hour. The silence that is owed afterwards is in `elapsed_s`."""
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
