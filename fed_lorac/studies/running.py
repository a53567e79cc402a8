"""A study's runs, one after another or side by side, to their end or so many rounds far. Knows trials and folders; not
which runs are wanted."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fed_lorac.api.start import prepare
from fed_lorac.config import Config, RunConfig, load_config
from fed_lorac.errors import one_line
from fed_lorac.records.ledger import Row
from fed_lorac.reporting.watch import Watch
from fed_lorac.studies.definition import Trial
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.watch import StudyWatch

__all__ = ["runs"]


def runs(
    todo: Sequence[Trial], folder: StudyFolder, workers: int, watch: StudyWatch, until: int | None = None
) -> Iterator[tuple[Trial, str | None]]:
    """Each run that is to do, as it ends, and the error where it failed.

    `until`: the round that they are stopped after; None: none. A run that was stopped goes on from there the next time,
    and comes to the same end as one that was not.
    """
    for trial in todo:
        folder.clear_error(trial)
    if workers == 1 or not todo:
        for trial in todo:
            watch.started(trial)
            yield trial, _attempt(trial, folder, until)
        return
    from fed_lorac.grid.ray.tasks import run_tasks  # noqa: PLC0415  (one process needs no Ray)

    by_digest = {trial.digest: trial for trial in todo}
    tasks = {d: (one.config.to_flat(), str(folder.of(one)), folder.goes_on(one), until) for d, one in by_digest.items()}
    share = _share(todo, workers)
    for digest, error in run_tasks(_do, tasks, share=share, started=lambda digest: watch.started(by_digest[digest])):
        yield by_digest[digest], error


def _share(todo: Sequence[Trial], workers: int) -> RunConfig:
    """What each of the processes takes of a node: the most that any run asks for."""
    asked = [trial.config.run for trial in todo]
    device = next((run.device for run in asked if run.device != "cpu"), "cpu")
    return RunConfig(workers=workers, threads=max((run.threads for run in asked), default=1), device=device)


def _attempt(trial: Trial, folder: StudyFolder, until: int | None) -> str | None:
    try:
        _do(trial.config, folder.of(trial), folder.goes_on(trial), until)
    except Exception as error:  # of somebody else's part, say: the other runs do not suffer for it
        return one_line(error)
    return None


def _do(config: Config | Mapping[str, object], folder: Path | str, goes_on: bool, until: int | None) -> None:
    """One run, in this process."""
    resume, out = (folder, None) if goes_on else (None, folder)
    watch = _Until(until)
    with prepare(load_config(config), out=out, resume=resume, overwrite=not goes_on) as start:
        try:
            start.run(watch)
        except KeyboardInterrupt:
            if not watch.stopped:
                raise


class _Until(Watch):
    """Ends a run after a round as Ctrl-C would: with its checkpoint and its results so far."""

    def __init__(self, rounds: int | None) -> None:
        self.rounds, self.stopped = rounds, False

    def round(self, row: Row, of: int) -> None:
        if row["round"] == self.rounds:
            self.stopped = True
            raise KeyboardInterrupt
