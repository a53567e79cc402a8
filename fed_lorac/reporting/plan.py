"""What updates of a method take on a link, reckoned ahead: bytes, air, joules, battery and cost, and what cannot be.
Knows sizes of messages, links and batteries; not how a message is made.

An update of a camera is one reply up and one update down, each a message of its own on the link. Only frames cross a
real radio; Flower's messages around them are the simulation's.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fed_lorac.radio.battery import DAY_S, Battery
from fed_lorac.radio.link import Crossing, Link, crossed, heard

__all__ = ["MethodSizes", "Plan", "Planned", "Terms", "planned"]

WEEK_S = 7 * DAY_S
_YEAR_WEEKS = 365.25 / 7


@dataclass(frozen=True)
class MethodSizes:
    """A method by name, and what an update of one camera sends: bytes of the frame up, and of the update's down.

    `downlink_groups`: how many groups of cameras there are, such as clusters, that each hear another update together.
    """

    method: str
    uplink_frame_bytes: int
    downlink_frame_bytes: int
    downlink_groups: int = 1


@dataclass(frozen=True)
class Terms:
    """How many cameras, how often, at what price, and on what power.

    Args:
        cameras: how many there are, each of which takes part in each update.
        updates_week: updates in a week.
        price_per_mb: what a million bytes on the air cost.
        battery: each camera's.
        compute_s: seconds of training in an update, of a mean camera.
        compute_watt: watts in them.
        idle_watt: watts of a camera beside training and radio.
    """

    cameras: int
    updates_week: float
    price_per_mb: float
    battery: Battery
    compute_s: float
    compute_watt: float
    idle_watt: float


@dataclass(frozen=True)
class Planned:
    """One method on one link: all of an update of one camera, up and down together, unless the name says more.

    `air_time_s`: how long the camera transmits. `takes_s`: from the beginning of its reply until it may send again
    after it has heard the update, without training. `air_share`: the share of all time that this is. `station_share`:
    the share of all time that one base station for all cameras would transmit; `base_stations`: how many they need so
    that none is on the air longer than the duty cycles of its sub-bands allow. `downlink`: "unicast", or "multicast",
    which sends the update once to each of `downlink_groups`, and once more to each of the share `repaired` of the
    cameras.
    `fleet_bytes_on_air` of all cameras' update, and `cost_year` of all of them. `problems`: what cannot be, or what
    has to be known, each as a sentence.
    """

    method: str
    link: str
    downlink: str
    repaired: float
    uplink_frame_bytes: int
    downlink_frame_bytes: int
    downlink_groups: int
    packets: int
    bytes_on_air: int
    fleet_bytes_on_air: int
    air_time_s: float
    takes_s: float
    air_share: float
    station_share: float
    base_stations: int
    energy_radio_j: float
    energy_compute_j: float
    battery_days: float
    cost_year: float
    possible: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A row a method and link, which methods were left out, with why, and the config's own method in words."""

    terms: Terms
    own: str
    rows: tuple[Planned, ...]
    left_out: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what is not known is null; so are the days of a battery that lasts for ever, which
        `battery_for_ever` says."""
        rows = [
            {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in its}
            | {"battery_for_ever": math.isinf(row.battery_days)}
            for row in self.rows
            for its in [asdict(row).items()]
        ]
        return {"terms": asdict(self.terms), "own": self.own, "rows": rows, "left_out": list(self.left_out)}


def planned(methods: Iterable[MethodSizes], links: Sequence[Link], terms: Terms) -> Iterator[Planned]:
    """Each method on each link."""
    for sizes in methods:
        for link in links:
            yield _row(sizes, link, terms)


@dataclass(frozen=True)
class _Down:
    """An update's way down: as the mean camera has it, and of what is sent, which part is for all and which for each.

    `once`: to a group by multicast, nothing otherwise; `each`: the mean of what each camera is sent alone. `arrives`:
    the probability that a camera has the update in the end.
    """

    once: Crossing
    each: Crossing
    repaired: float
    arrives: float

    @classmethod
    def on(cls, link: Link, n_bytes: int) -> "_Down":
        """On a link, as its `downlink` says."""
        if not link.multicasts:
            alone = crossed(link, n_bytes, up=False)
            return cls(Crossing(), alone, 0.0, alone.arrives)
        share, repair = link.repaired(n_bytes), heard(link, n_bytes, again=True)
        return cls(heard(link, n_bytes), _share_of(repair, share), share, 1 - share * (1 - repair.arrives))


def _share_of(crossing: Crossing, share: float) -> Crossing:
    """The mean over cameras of which a share has this, and the others nothing."""
    found = {name: share * value for name, value in vars(crossing).items() if name != "arrives"}
    return Crossing(**{**found, "packets": round(found["packets"]), "bytes_on_air": round(found["bytes_on_air"])})


def _row(sizes: MethodSizes, link: Link, terms: Terms) -> Planned:
    up, way = crossed(link, sizes.uplink_frame_bytes, up=True), _Down.on(link, sizes.downlink_frame_bytes)
    down, alone = way.once + way.each, up + way.each
    takes_s, groups = up.busy_s + down.busy_s, min(sizes.downlink_groups, terms.cameras)
    fleet_on_air = groups * way.once.bytes_on_air + terms.cameras * alone.bytes_on_air
    radio_j, compute_j = up.energy_j + down.energy_j, terms.compute_s * terms.compute_watt
    air_share = terms.updates_week * takes_s / WEEK_S
    sent_s = groups * way.once.station_s, terms.cameras * up.station_s, terms.cameras * way.each.station_s
    for_all, answers, for_each = (terms.updates_week * s / WEEK_S for s in sent_s)
    daily_j = terms.updates_week / 7 * (radio_j + compute_j) + DAY_S * (link.standing_w + terms.idle_watt)
    impossible = list(_impossible(link, terms, takes_s, air_share, for_all))
    return Planned(
        **asdict(sizes),
        link=link.name,
        downlink=link.downlink,
        repaired=way.repaired,
        packets=up.packets + down.packets,
        bytes_on_air=up.bytes_on_air + down.bytes_on_air,
        fleet_bytes_on_air=fleet_on_air,
        air_time_s=up.transmit_s + down.transmit_s,
        takes_s=takes_s,
        air_share=air_share,
        station_share=for_all + answers + for_each,
        base_stations=_base_stations(link, for_all, answers, for_each),
        energy_radio_j=radio_j,
        energy_compute_j=compute_j,
        battery_days=terms.battery.days(daily_j),
        cost_year=terms.updates_week * _YEAR_WEEKS * terms.price_per_mb * fleet_on_air / 1e6,
        possible=not impossible,
        problems=(*impossible, *_to_know(terms, up.arrives, way.arrives, terms.battery.days(daily_j))),
    )


def _base_stations(link: Link, for_all: float, answers: float, for_each: float) -> int:
    """How many are needed: each transmits what is for all, and its part of what is for each, in no sub-band longer than
    it may. Answers to replies go in the replies' own, updates perhaps in another, whose duty cycle tells it apart."""
    left, together = link.station_duty_cycle - for_all, link.station_duty_cycle == link.duty_cycle
    if left <= 0:
        return 1
    for_updates = (for_each + answers * together) / left
    return max(1, math.ceil(for_updates), 0 if together else math.ceil(answers / link.duty_cycle))


def _impossible(link: Link, terms: Terms, takes_s: float, air_share: float, for_all: float) -> Iterator[str]:
    """What no camera can do, and no base station."""
    if air_share > 1:
        limit = f"under the duty cycle of {link.duty_cycle:.1%}" if link.duty_cycle < 1 else "at the link's rate"
        yield (
            f"impossible: an update takes {takes_s / DAY_S:,.1f} days {limit}, and with {terms.updates_week:g} a week "
            f"it has {7 / terms.updates_week:,.1f}."
        )
    if for_all > link.station_duty_cycle:
        yield (
            f"impossible: a base station would be sending what goes to all cameras {for_all:.1%} of the time, and is "
            f"allowed {link.station_duty_cycle:.1%}."
        )


def _to_know(terms: Terms, up: float, down: float, battery_days: float) -> Iterator[str]:
    """What a plan has to reckon with besides; `up` and `down`: probabilities that a message arrives."""
    if up < 0.99:
        yield f"a reply arrives whole with probability {up:.2g}: confirm packets, or repeat them."
    if down < 0.99:
        yield f"an update arrives whole with probability {down:.2g}: allow more attempts."
    if battery_days < 7 / terms.updates_week:
        yield f"a full battery is empty after {battery_days:.1f} days, before the next update."
