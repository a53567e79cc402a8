"""`fed-lorac compare`: runs side by side, or a study's table again. Knows the terminal; not what is compared."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fed_lorac.commands.options import Format, finite

__all__ = ["compare"]


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs on one fleet, or the folder of one study.")],
    target: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Also show the bytes sent until this accuracy (0 to 1) was reached.",
            show_default="none",
            callback=finite,
        ),
    ] = None,
    format: Format = "markdown",
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|ARM",
            help="One of the folders, or an arm of the study: the others are tested against it, camera by camera.",
            show_default="full fine-tuning, else the first",
        ),
    ] = None,
) -> None:
    """Print several runs side by side, with the share of full fine-tuning's gain that each recovers.

    Runs that differ only in their seed share a row: mean ± half of its 95 % interval. Rows on one fleet are tested
    against one of them, camera by camera. With --format csv the notes go to standard error.
    """
    from fed_lorac.reporting.sheet import check_format  # noqa: PLC0415
    from fed_lorac.studies.folder import holds_study  # noqa: PLC0415

    check_format(format)
    if len(folders) == 1 and holds_study(folders[0]):
        from fed_lorac.studies.result import load_study  # noqa: PLC0415
        from fed_lorac.studies.table import study_table  # noqa: PLC0415

        sheet = study_table(load_study(folders[0]), against, target)
    else:
        from fed_lorac.reporting.compare import compared  # noqa: PLC0415

        sheet = compared(folders, target, against)
    sys.stdout.write(sheet.written(format) + "\n")
    if format == "csv":
        sys.stderr.write("".join(f"{note}\n" for note in sheet.notes))
