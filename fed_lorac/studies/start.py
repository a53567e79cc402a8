"""A study from Python. Knows definitions and folders; not what a run computes."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

from fed_lorac.runtime.files import home_expanded
from fed_lorac.studies.conduct import conduct
from fed_lorac.studies.part import Part
from fed_lorac.studies.read import load_definition, parse_study
from fed_lorac.studies.result import StudyResult
from fed_lorac.studies.watch import StudyWatch

__all__ = ["study"]


def study(
    source: str | PathLike[str] | Mapping[str, Any],
    out: str | PathLike[str] | None = None,
    *,
    workers: int = 1,
    arms: Collection[str] = (),
    seeds: Collection[int] = (),
    progress: bool = True,
) -> StudyResult:
    """Run many configs that belong together, wait for them, and return what they found.

        found = fl.study({"seeds": [0, 1], "arms": {"r1": {"adapter.rank": 1}, "r2": {"adapter.rank": 2}}}, out="ranks")
        found.runs.groupby("arm").accuracy.mean()

    Args:
        source: a shipped name, a TOML file, or its content as a mapping.
        out: the study's folder; what is finished there is not run again. None: `studies/NAME`.
        workers: runs that go at once, each in a process of its own, on Ray.
        arms, seeds: run those of these alone; the folders of several parts are put together by copying their `runs/`.
        progress: show how it goes on standard error.

    Raises:
        ConfigError: it is no study, or a run's settings make no sense.
        RunError: the folder cannot be written, or another process is at work in it.
    """
    if isinstance(source, Mapping):
        asked = parse_study("study", source, Path.cwd())
    else:
        asked = load_definition(source if isinstance(source, str) else Path(source))
    target = home_expanded(Path(out or Path("studies") / asked.name)).absolute()
    with _watch(progress) as watch:
        return conduct(asked, target, workers=workers, watch=watch, part=Part(asked, arms, seeds))


def _watch(progress: bool) -> AbstractContextManager[StudyWatch]:
    if not progress:
        return nullcontext(StudyWatch())
    from fed_lorac.studies.progress import RichStudyWatch  # noqa: PLC0415

    return RichStudyWatch()
