"""`fed-lorac fleet`: a fleet before anything is run. Knows the terminal; not how cameras come to be."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_lorac.commands.options import AsJson, Overrides, Overwrite, Source, err, out

if TYPE_CHECKING:
    from fed_lorac.api.fleet import FleetView

__all__ = ["fleet"]


def fleet(
    config: Source = None,
    overrides: Overrides = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Write a contact sheet of what cameras see.", show_default="none"),
    ] = None,
    cameras: Annotated[int, typer.Option(min=1, help="How many cameras to show, from the first.")] = 24,
    images: Annotated[
        int, typer.Option(min=1, help="How many images (or rounds) of each camera the contact sheet shows.")
    ] = 8,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show a config's fleet before anything is run: weathers, label mix, links, images, and bytes to come."""
    with err.status("importing PyTorch") as status:
        from fed_lorac.api.fleet import show_fleet  # noqa: PLC0415
        from fed_lorac.data.progress import heard_by  # noqa: PLC0415

        found = show_fleet(config, overrides or [])
        with heard_by(lambda what, done, total: status.update(what)):
            rows = found.cameras.to_dict("records")
            if picture is not None:
                status.update("drawing what cameras see")
                picture = found.save_picture(picture, cameras=cameras, images=images, overwrite=overwrite)
    if as_json:
        messages = found.messages and found.messages.as_dict()
        for row, mix, weather in zip(rows, *(t.to_dict("records") for t in (found.labels, found.weather)), strict=True):
            row |= {"label_mix": mix, "weather": list(weather.values())}
        sys.stdout.write(json.dumps({"cameras": rows, "messages": messages}, indent=2) + "\n")
    else:
        _show(found, cameras)
    if picture is not None:
        err.print(f"The contact sheet is in {picture}", highlight=False, markup=False, soft_wrap=True)


def _show(found: "FleetView", cameras: int) -> None:
    out.print(found.table(cameras))
    if (more := len(found.cameras) - cameras) > 0:
        out.print(f"... and {more} more: --cameras shows them.")
    for line in found.lines():
        out.print(line, highlight=False, markup=False, soft_wrap=True)
