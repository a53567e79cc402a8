"""What a run's messages take on the fleet's links, beside full fine-tuning's. Knows links and sums of bytes; not
rounds."""

from collections.abc import Mapping

from fed_lorac.radio.link import Link, crossed
from fed_lorac.wire.billing import Reference

__all__ = ["ARMS", "on_links"]

DAY_S = 86_400.0

ARMS = {"adapter": "", "full": "full_", "full_fp32": "full_fp32_"}
"""This method, full fine-tuning under the same codec, and in fp32 -> what their columns begin with."""

Times = dict[str, dict[str, float]]


def on_links(
    links: Mapping[str, Link], totals: Mapping[str, int], full: Reference, cameras: int
) -> tuple[Times, Times]:
    """By link and arm, for a camera that sends its share of the run's replies: seconds that it transmits, and days on
    the clock, with the silence that a duty cycle demands.

    Args:
        links: each link of the fleet by name.
        totals: the run's sums of the round's columns of bytes.
        full: full fine-tuning's messages; every reply has one beside it.
        cameras: how many there are.
    """
    replies = round(totals["full_uplink_message_bytes"] / full.same_codec.up)
    sizes = {arm: round(totals[f"{whose}uplink_message_bytes"] / max(1, replies)) for arm, whose in ARMS.items()}
    each = {name: {arm: crossed(link, size, up=True) for arm, size in sizes.items()} for name, link in links.items()}
    share = replies / cameras
    air_s = {name: {arm: share * one.transmit_s for arm, one in arms.items()} for name, arms in each.items()}
    days = {
        name: {arm: seconds / links[name].duty_cycle / DAY_S for arm, seconds in arms.items()}
        for name, arms in air_s.items()
    }
    return air_s, days
