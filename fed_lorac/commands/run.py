"""`fed-lorac run`: from a config, or a run to go on with, to its tables. Knows the terminal; not what a run does."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_lorac.commands.options import AsJson, Overrides, Source, err, out
from fed_lorac.errors import ConfigError, FedLoracError

if TYPE_CHECKING:
    from fed_lorac.config import Config

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
    as_json: AsJson = False,
) -> None:
    """Run a simulation and print what it found."""
    from fed_lorac.config import load_config, resumed_config  # noqa: PLC0415
    from fed_lorac.records.run_folder import check_new, folder_for  # noqa: PLC0415

    if resume is not None and folder not in (None, resume):
        raise ConfigError(f"A run goes on in its own folder; --resume is {resume}, --out {folder}. Leave --out away.")
    if resume is None:
        settings = load_config(config, overrides or [])
    else:
        settings = resumed_config(resume, config, overrides or [])
    with folder_for(settings, Path(config or "quickstart").stem, resume or folder) as target:
        if resume is None:
            check_new(target, settings)  # before PyTorch, Flower and the images are waited for
        _run(settings, target, resume=resume is not None, as_json=as_json)


def _run(settings: "Config", target: Path, *, resume: bool, as_json: bool) -> None:
    with err.status("importing PyTorch and Flower"):
        from fed_lorac.reporting.progress import RichWatch  # noqa: PLC0415
        from fed_lorac.simulation.engines import run as run_on_engine  # noqa: PLC0415

    try:
        with RichWatch(err, settings.run.rounds) as watch:
            run_on_engine(settings, target, watch, resume=resume)
    except KeyboardInterrupt:
        if (target / "summary.json").is_file():
            _show(target, as_json=as_json)
        _say_how_to_go_on(target)
        raise
    except FedLoracError:
        _say_how_to_go_on(target)
        raise
    _show(target, as_json=as_json)


def _show(target: Path, *, as_json: bool) -> None:
    from fed_lorac.records.summaries import read_summary  # noqa: PLC0415
    from fed_lorac.reporting.tables import show_run  # noqa: PLC0415

    summary = read_summary(target)
    if as_json:
        sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    else:
        show_run(out, summary)
    err.print(f"The run is in {target}", highlight=False, markup=False, soft_wrap=True)


def _say_how_to_go_on(target: Path) -> None:
    from fed_lorac.records.run_folder import can_go_on  # noqa: PLC0415

    if can_go_on(target):
        command = f"fed-lorac run --resume {shlex.quote(str(target))}"
        err.print(f"What was done is kept. To go on: {command}", highlight=False, markup=False, soft_wrap=True)
