"""What a run's messages take on the fleet's links, beside full fine-tuning's. Knows links and sums of bytes; not
rounds."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from fed_lorac.radio.battery import DAY_S, Battery
from fed_lorac.radio.link import Link, crossed
from fed_lorac.records.ledger import Row
from fed_lorac.wire.billing import Reference

__all__ = ["ARMS", "energy_of", "on_links"]

ARMS = {"adapter": "", "full": "full_", "full_fp32": "full_fp32_"}
"""This method, full fine-tuning under the same codec, and in fp32 -> what their columns begin with."""

Times = dict[str, dict[str, float]]


def on_links(links: Mapping[str, tuple[Link, int]], sent: Iterable[Row], full: Reference) -> tuple[Times, Times]:
    """By link and arm, for the mean camera on the link, in the whole run: seconds that it transmits, and days on the
    clock, with the silence that a duty cycle demands.

    Args:
        links: each link of the fleet by name, and how many cameras have it.
        sent: the ledger's cameras. Frames cross the radio, not Flower's messages.
        full: full fine-tuning's messages; every reply has one beside it.
    """
    replies, seconds = Counter[str](), dict[str, list[float]]()
    for row in sent:
        if row["uplink_message_bytes"]:
            replies[row["link"]] += 1
            seconds.setdefault(row["link"], []).append(row["uplink_air_time_s"])
    sizes = {"full": full.same_codec.up.frame_bytes, "full_fp32": full.fp32.up.frame_bytes}
    air_s = {
        name: {
            "adapter": math.fsum(seconds.get(name, ())) / cameras,
            **{arm: replies[name] * crossed(link, size, up=True).transmit_s / cameras for arm, size in sizes.items()},
        }
        for name, (link, cameras) in links.items()
    }
    days = {
        name: {arm: its / links[name][0].duty_cycle / DAY_S for arm, its in arms.items()}
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
