"""`fed-lorac compare`: runs side by side, or a study's table again. Knows the terminal; not what is compared."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fed_lorac.commands.options import Format
from fed_lorac.errors import ConfigError

__all__ = ["compare"]


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs over one fleet, or of one study.")],
    target: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Also what reaching this accuracy took, 0 to 1.", show_default="none"),
    ] = None,
    format: Format = "markdown",
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|ARM",
            help="What the others are tested against, camera by camera: one of the folders, or an arm of the study.",
            show_default="full fine-tuning, else the first",
        ),
    ] = None,
) -> None:
    """Print several runs side by side, with the share of full fine-tuning's gain that each recovers.

    Runs that differ in their seed alone are one row: the mean, half of its 95 % interval. Rows over one fleet are
    tested against one of them, camera by camera. The notes of a CSV go to standard error.
    """
    from fed_lorac.reporting.sheet import check_format  # noqa: PLC0415
    from fed_lorac.studies.folder import holds_study  # noqa: PLC0415

    check_format(format)
    if len(folders) == 1 and holds_study(folders[0]):
        from fed_lorac.studies.result import load_study  # noqa: PLC0415
        from fed_lorac.studies.table import study_table  # noqa: PLC0415

        if target is not None:
            raise ConfigError("What reaching an accuracy took is said of runs; this is a study. Leave --target away.")
        sheet = study_table(load_study(folders[0]), against)
    else:
        from fed_lorac.reporting.compare import compared  # noqa: PLC0415

        sheet = compared(folders, target, against)
    sys.stdout.write(sheet.written(format) + "\n")
    if format == "csv":
        sys.stderr.write("".join(f"{note}\n" for note in sheet.notes))
