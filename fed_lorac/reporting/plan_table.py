"""A plan as tables, one a link. Knows plans and rich; not how they are reckoned."""

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from fed_lorac.radio.battery import DAY_S
from fed_lorac.reporting.plan import Plan, Planned

__all__ = ["plan_tables"]


def plan_tables(plan: Plan) -> Iterator[RenderableType]:
    """A table a link with a row a method; below it what cannot be, and what has to be known."""
    terms = plan.terms
    yield (
        f"{terms.cameras:,} cameras, {_updates(terms.updates_week)} a week, batteries of "
        f"{terms.battery.capacity_wh:g} Wh. own: {plan.own}. An update of one camera, up and down:"
    )
    for link in dict.fromkeys(row.link for row in plan.rows):
        rows = [row for row in plan.rows if row.link == link]
        yield f"{link}: {_downlink(rows)}"
        yield _table(rows, priced=terms.price_per_mb > 0)
        yield from _stations(rows, terms.cameras)
        yield from (f"  {row.method}: {problem}" for row in rows for problem in row.problems)
    yield from (f"Left out: {said}" for said in plan.left_out)


def _updates(number: float) -> str:
    return "an update" if number == 1 else f"{number:g} updates"


def _downlink(rows: list[Planned]) -> str:
    """How the update goes down: bytes, times, joules, battery and cost are of that."""
    if rows[0].downlink == "unicast":
        return "a copy of the update to each camera (unicast)"
    least, most = (pick(row.repaired for row in rows) for pick in (min, max))
    share = f"{least:.1%}" if least == most else f"{least:.1%} to {most:.1%}"
    return f"the update once for all (multicast), to {share} of the cameras again"


def _table(rows: list[Planned], *, priced: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    columns = ["", "bytes", "pack-\nets", "on the\nair", "sends", "takes", "joules", "battery"]
    for place, name in enumerate([*columns, *(["cost,\nyear"] * priced)]):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        cost = [_number(row.cost_year)] * priced
        table.add_row(*_cells(row), *cost, style="" if row.possible else "red")
    return table


def _stations(rows: list[Planned], cameras: int) -> Iterator[str]:
    """How many base stations a method needs, where one would be on the air for longer than it may."""
    if needed := [f"{row.method} {row.base_stations:,}" for row in rows if row.base_stations > 1]:
        yield f"  base stations needed for {cameras:,} cameras, given their time on the air: {', '.join(needed)}."


def _cells(row: Planned) -> Iterator[str]:
    yield row.method
    for count in (row.uplink_frame_bytes + row.downlink_frame_bytes, row.packets, row.bytes_on_air):
        yield f"{count:,}"
    yield _time(row.air_time_s)
    yield _time(row.takes_s) + " !" * (not row.possible)
    yield _number(row.energy_radio_j + row.energy_compute_j)
    yield "for ever" if math.isinf(row.battery_days) else _time(DAY_S * row.battery_days)  # ? where not known


_UNITS = (("s", 1.0, 120.0), ("min", 60.0, 7_200.0), ("h", 3_600.0, 2 * DAY_S), ("d", DAY_S, 730 * DAY_S))


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    for unit, size, below in _UNITS:
        if seconds < below:
            return f"{_number(seconds / size)} {unit}"
    return f"{_number(seconds / (365.25 * DAY_S))} y"


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return "?" if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
