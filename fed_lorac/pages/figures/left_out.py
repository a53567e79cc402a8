"""Why replies were left out. Knows what is reported; not how it is drawn."""

from collections import Counter

from fed_lorac.errors import kind_of
from fed_lorac.pages.chart import Absent, Bars, Figure
from fed_lorac.pages.reported import Reported

__all__ = ["left_out"]

_TITLE = "Replies that were left out"


def left_out(found: Reported) -> Figure | Absent:
    """How many replies of each arm did not count, by reason, all rounds and seeds together."""
    counts: dict[str, Counter[str]] = {arm.label: Counter() for arm in found.arms}
    asked = Counter[str]()
    for arm in found.arms:
        for run in arm.runs:
            for row in run.rounds:
                asked[arm.label] += row["cameras_counted"] + row["cameras_left_out"]
                for reason, count in row["reasons"].items():
                    counts[arm.label][kind_of(reason)] += count
    reasons = [reason for reason, _ in sum(counts.values(), Counter[str]()).most_common()]
    if not reasons:
        return Absent(_TITLE, f"none was: all {asked.total():,} replies that were asked for counted.")
    rows = [
        {"arm": arm, "reason": reason, "replies": counts[arm][reason], "asked": asked[arm]}
        for arm in counts
        for reason in reasons
    ]
    total = sum(its.total() for its in counts.values())
    commonest = sum(its[reasons[0]] for its in counts.values())
    caption = (
        f"{total:,} of {asked.total():,} replies were left out ({total / asked.total():.1%}); the commonest reason "
        f'is "{reasons[0]}" ({commonest:,}). Counted over all rounds and seeds.'
    )
    alt = f"Stacked bars of replies left out, by reason ({', '.join(reasons)}), for each of {len(counts)} arms."
    shares = {reason: [counts[arm][reason] / (asked[arm] or 1) for arm in counts] for reason in reasons}
    hover = {
        reason: [f"{arm}\n{reason}: {counts[arm][reason]:,} of {asked[arm]:,} replies" for arm in counts]
        for reason in reasons
    }
    bars = Bars(list(counts), shares, hover, "share of the replies that were asked for")
    return Figure("left-out", _TITLE, caption, alt, rows, bars)
