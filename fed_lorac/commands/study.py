"""`fed-lorac study`: many runs from one file, and their table. Knows the terminal; not what a study does."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fed_lorac.commands.options import Format, err

if TYPE_CHECKING:
    from fed_lorac.studies.definition import Study
    from fed_lorac.studies.part import Part

__all__ = ["study"]


def study(
    definition: Annotated[
        str, typer.Argument(metavar="NAME|FILE.toml", help="The name of a shipped study, or a TOML file.")
    ],
    folder: Annotated[
        Path | None, typer.Option("--out", help="The study's folder.", show_default="studies/NAME")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs at a time, each in its own process.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ARM", help="Run only this arm. May be repeated.", show_default="all"),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Run only this seed. May be repeated.", show_default="all")
    ] = None,
    format: Format = "markdown",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only print the runs, the bytes that each will send, and about how long they will take."
        ),
    ] = False,
) -> None:
    """Run many configs that belong together (arms, a grid, seeds), and print one table.

    Runs that are finished in the folder are not run again, interrupted ones go on, and one that fails is a row with its
    error. study.csv and study.parquet have a row per run, rounds.csv and rounds.parquet one per run and round.

    Exit code 1 if a run failed.
    """
    from fed_lorac.reporting.sheet import check_format  # noqa: PLC0415
    from fed_lorac.studies.part import Part  # noqa: PLC0415
    from fed_lorac.studies.read import load_definition  # noqa: PLC0415

    check_format(format)
    asked = load_definition(definition)
    part = Part(asked, only or (), seed or ())
    target = folder or Path("studies") / asked.name
    if dry_run:
        _show_plan(asked, target, part, workers)
        return
    with err.status("importing PyTorch and Flower"):
        from fed_lorac.simulation import engines  # noqa: F401, PLC0415
        from fed_lorac.studies.conduct import conduct  # noqa: PLC0415
        from fed_lorac.studies.progress import RichStudyWatch  # noqa: PLC0415
        from fed_lorac.studies.table import study_table  # noqa: PLC0415

    with RichStudyWatch(err) as watch:
        found = conduct(asked, target.absolute(), workers=workers, watch=watch, part=part)
    sys.stdout.write(study_table(found).written(format) + "\n")
    err.print(f"The study is in {found.path}", highlight=False, markup=False, soft_wrap=True)
    if (found.runs["status"] == "failed").any():
        raise typer.Exit(1)


def _show_plan(asked: "Study", target: Path, part: "Part", workers: int) -> None:
    from fed_lorac.pages.words import time_said  # noqa: PLC0415
    from fed_lorac.studies.planned import planned, seconds_to_come  # noqa: PLC0415
    from fed_lorac.studies.search import HALVING  # noqa: PLC0415
    from fed_lorac.studies.weighing import bytes_in_words  # noqa: PLC0415

    runs = planned(asked, target.absolute(), part, workers)
    with err.status("weighing what is sent"):
        weighed = bytes_in_words(run.finding.trial for run in runs)
    for run in runs:
        trial = run.finding.trial
        sys.stdout.write(f"{trial.digest}  {run.finding.status:8}  {trial.name}: {weighed[trial.digest]}\n")
    if asked.tuning and asked.tuning.search == HALVING:
        stages = ", ".join(map(str, asked.tuning.stages(runs[0].finding.trial.config.run.rounds)))
        sys.stdout.write(
            f"Successive halving: {len(asked.tuning.points())} values for each arm and point of the grid; after each "
            f"of the rounds {stages} the better third goes on.\n"
        )
    to_do = [run for run in runs if run.rounds_left is not None]
    seconds = seconds_to_come(runs)
    at_once = f" with {workers} at once" if workers > 1 else ""
    took = (
        "how long they take can be estimated once a run is finished"
        if seconds is None
        else f"about {time_said(seconds / workers / 86400)}{at_once}, estimated from their images and finished runs"
    )
    sys.stdout.write(f"{len(to_do)} of {len(runs)} runs to do" + (f"; {took}" if to_do else "") + "\n")
