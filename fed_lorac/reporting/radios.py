"""What a run's messages take on the fleet's links, beside full fine-tuning's. Knows links and sums of bytes; not
rounds."""

import math
from collections.abc import Mapping, Sequence

from fed_lorac.radio.battery import DAY_S, Battery
from fed_lorac.radio.link import Link, crossed
from fed_lorac.records.ledger import Row
from fed_lorac.wire.billing import Reference

__all__ = ["ARMS", "energy_of", "on_links"]

ARMS = {"adapter": "", "full": "full_", "full_fp32": "full_fp32_"}
"""This method, full fine-tuning under the same codec, and in fp32 -> what their columns begin with."""

Times = dict[str, dict[str, float]]


def on_links(
    links: Mapping[str, Link], totals: Mapping[str, int | None], full: Reference, cameras: int
) -> tuple[Times, Times]:
    """By link and arm, for a camera that sends its share of the run's replies: seconds that it transmits, and days on
    the clock, with the silence that a duty cycle demands.

    Args:
        links: each link of the fleet by name.
        totals: the run's sums of the round's columns of bytes. Frames cross the radio, not Flower's messages.
        full: full fine-tuning's messages; every reply has one beside it.
        cameras: how many there are.
    """
    replies = round((totals["full_uplink_message_bytes"] or 0) / full.same_codec.up.message_bytes)
    own = round((totals["uplink_frame_bytes"] or 0) / max(1, replies))
    sizes = {"adapter": own, "full": full.same_codec.up.frame_bytes, "full_fp32": full.fp32.up.frame_bytes}
    each = {name: {arm: crossed(link, size, up=True) for arm, size in sizes.items()} for name, link in links.items()}
    share = replies / cameras
    air_s = {name: {arm: share * one.transmit_s for arm, one in arms.items()} for name, arms in each.items()}
    days = {
        name: {arm: seconds / links[name].duty_cycle / DAY_S for arm, seconds in arms.items()}
        for name, arms in air_s.items()
    }
    return air_s, days


def energy_of(rows: Sequence[Row], links: Sequence[tuple[Link, int]], battery: Battery) -> dict[str, float | None]:
    """Joules of a mean camera in the whole run, and how many days a full battery lasts at a round a week: this method,
    and full fine-tuning in fp32 with the same training. None where a link's power is not known, or for ever.

    Args:
        rows: the ledger's rounds.
        links: each link of the fleet, and how many cameras have it.
        battery: each camera's.
    """
    cameras, rounds = sum(count for _, count in links), max(1, len(rows))

    def mean(column: str) -> float:
        return sum(math.nan if row[column] is None else row[column] for row in rows) / cameras

    radio, full, compute = map(mean, ("energy_radio_j", "full_fp32_energy_radio_j", "energy_compute_j"))
    standing_j = DAY_S * sum(link.standing_w * count for link, count in links if count) / cameras
    found = {"radio_j": radio, "compute_j": compute, "full_fp32_radio_j": full}
    for name, joules in (("battery_days", radio + compute), ("full_fp32_battery_days", full + compute)):
        found[name] = battery.days(joules / rounds / 7 + standing_j)
    return {name: value if math.isfinite(value) else None for name, value in found.items()}
