"""`fed-lorac plan`: what a fleet's updates would take, as tables or JSON. Knows the terminal; not how it is
reckoned."""

import json
import sys
from typing import Annotated

import typer

from fed_lorac.commands.options import AsJson, Overrides, Source, err, finite, out

__all__ = ["plan"]


def plan(
    config: Source = None,
    overrides: Overrides = None,
    cameras: Annotated[
        int | None,
        typer.Option(min=1, help="Cameras, all of which take part in every update.", show_default="fleet.cameras"),
    ] = None,
    updates_week: Annotated[float, typer.Option(help="Updates in a week.", callback=finite)] = 1.0,
    price_per_mb: Annotated[
        float, typer.Option(min=0, help="The price of a million bytes on the air.", callback=finite)
    ] = 0.0,
    method: Annotated[
        list[str] | None,
        typer.Option(help="An adapter, or own (the config's). May be repeated.", show_default="own and all"),
    ] = None,
    link: Annotated[
        list[str] | None, typer.Option(help="A radio class, or all. May be repeated.", show_default="fleet.link")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what an update takes on a link, without training: bytes, packets, air time, joules, battery and cost.

    Methods are the config's own, every adapter with its defaults, and full fine-tuning in fp32. Notes name
    what a link cannot carry.
    """
    with err.status("building and weighing what is sent"):
        from fed_lorac.api.plan import plan as planned  # noqa: PLC0415
        from fed_lorac.reporting.plan_table import plan_tables  # noqa: PLC0415

        found = planned(
            config,
            overrides or [],
            cameras=cameras,
            updates_week=updates_week,
            price_per_mb=price_per_mb,
            methods=method or (),
            links=link or (),
        )
    if as_json:
        sys.stdout.write(json.dumps(found.as_dict(), indent=2) + "\n")
        return
    for part in plan_tables(found):
        out.print(part, highlight=False, markup=False)
