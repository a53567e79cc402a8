"""`fed-lorac report`: a page about runs and studies. Knows the terminal; not what a page shows."""

from pathlib import Path
from typing import Annotated

import typer

from fed_lorac.commands.options import err, out

__all__ = ["report"]


def report(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders of runs or studies.")],
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="The folder to write to.", show_default="PATH; for several, their common folder"),
    ] = None,
    title: Annotated[str, typer.Option(help="The page's title.", show_default="the folder's name")] = "",
    images: Annotated[bool, typer.Option("--images/--no-images", help="Show what cameras see.")] = True,
) -> None:
    """Write a page about runs and studies, report.html, and its figures as PNG, SVG and CSV into figures/ beside it.

    The page is one file that needs no network. It needs pip install "fed-lorac\\[report]".
    """
    from fed_lorac.pages.report import report as write  # noqa: PLC0415

    with err.status("drawing"):
        page = write(*paths, out=folder, title=title, images=images)
    out.print(page, highlight=False, markup=False, soft_wrap=True)
