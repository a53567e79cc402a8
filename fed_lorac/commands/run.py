"""`fed-lorac run`: from a config, or a run to go on with, to its tables. Knows the terminal; not what a run does."""

import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_lorac.api.result import Run
from fed_lorac.commands.options import AsJson, Overrides, Source, err, out
from fed_lorac.errors import FedLoracError

if TYPE_CHECKING:
    from fed_lorac.api.start import Start

__all__ = ["run"]


def run(
    config: Source = None,
    overrides: Overrides = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="The run's folder.", show_default="run.out, or runs/NAME-TIME")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Go on with the run in DIR, from its newest checkpoint, under its own config.",
            show_default="a new run",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete the run that is already in the folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a simulation and print what it found."""
    with ExitStack() as until_the_end:
        with err.status("importing PyTorch"):
            from fed_lorac.api.start import prepare  # noqa: PLC0415

            asked = prepare(config, overrides or [], out=folder, resume=resume, overwrite=overwrite)
            start = until_the_end.enter_context(asked)
        _run(start, as_json=as_json)


def _run(start: "Start", *, as_json: bool) -> None:
    with err.status("importing Flower"):
        from fed_lorac.reporting.progress import RichWatch  # noqa: PLC0415
        from fed_lorac.simulation import engines  # noqa: F401, PLC0415

    try:
        with RichWatch(err, start.config.run.rounds) as watch:
            start.run(watch)
    except KeyboardInterrupt:
        if (found := Run(start.folder)).finished:
            _show(found, as_json=as_json)
        _say_how_to_go_on(start.folder)
        raise
    except FedLoracError:
        _say_how_to_go_on(start.folder)
        raise
    _show(Run(start.folder), as_json=as_json)


def _show(found: Run, *, as_json: bool) -> None:
    from fed_lorac.reporting.tables import show_run  # noqa: PLC0415

    if as_json:
        sys.stdout.write(json.dumps(found.summary, indent=2) + "\n")
    else:
        show_run(out, found.summary)
    err.print(f"The run is in {found.path}", highlight=False, markup=False, soft_wrap=True)


def _say_how_to_go_on(target: Path) -> None:
    from fed_lorac.records.run_folder import can_go_on  # noqa: PLC0415

    if can_go_on(target):
        command = f"fed-lorac run --resume {shlex.quote(str(target))}"
        err.print(f"What was done is kept. To go on: {command}", highlight=False, markup=False, soft_wrap=True)
