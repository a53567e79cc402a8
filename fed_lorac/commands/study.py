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
        str, typer.Argument(metavar="NAME|FILE.toml", help="A study that is shipped, or a TOML file.")
    ],
    folder: Annotated[
        Path | None, typer.Option("--out", help="The study's folder.", show_default="studies/NAME")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Runs that go at once, each in a process of its own.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ARM", help="Run this arm alone; give it again for another.", show_default="all"),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Run this seed alone; give it again for another.", show_default="all")
    ] = None,
    format: Format = "markdown",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the runs, the bytes that each will send and about how long, and run none."
        ),
    ] = False,
) -> None:
    """Run many configs that belong together (arms, a grid, seeds), and print one table.

    What is finished in the folder is never run again, what was interrupted goes on, and a run that fails is a row with
    its error. study.csv and study.parquet have a row a run, rounds.csv and rounds.parquet one a run and round.

    Exit code 1 where a run failed.
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
    from fed_lorac.studies.conduct import planned  # noqa: PLC0415
    from fed_lorac.studies.part import seconds_to_come  # noqa: PLC0415
    from fed_lorac.studies.search import HALVING  # noqa: PLC0415
    from fed_lorac.studies.weighing import bytes_in_words  # noqa: PLC0415

    findings = planned(asked, target.absolute(), part)
    with err.status("weighing what is sent"):
        weighed = bytes_in_words(finding.trial for finding in findings)
    for finding in findings:
        trial = finding.trial
        sys.stdout.write(f"{trial.digest}  {finding.status:8}  {trial.name}: {weighed[trial.digest]}\n")
    if asked.tuning and asked.tuning.search == HALVING:
        stages = ", ".join(map(str, asked.tuning.stages(findings[0].trial.config.run.rounds)))
        sys.stdout.write(
            f"Successive halving: of {asked.tuning.budget} values at each arm and point the better third goes on after "
            f"each of the rounds {stages}.\n"
        )
    to_do = [finding for finding in findings if finding.status != "finished"]
    seconds = seconds_to_come(findings)
    at_once = f" with {workers} at once" if workers > 1 else ""
    took = (
        "the time that they take is told once a run is finished"
        if seconds is None
        else f"about {time_said(seconds / workers / 86400)}{at_once}, by their images and what finished runs took"
    )
    sys.stdout.write(f"{len(to_do)} of {len(findings)} runs to do" + (f"; {took}" if to_do else "") + "\n")
