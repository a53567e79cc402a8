"""Running a study: what is finished stays, what was left goes on, what fails is a row. Knows trials and folders; not
what a run computes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fed_lorac.api.start import run
from fed_lorac.config import Config, RunConfig, load_config
from fed_lorac.errors import ConfigError, one_line
from fed_lorac.runtime.lock import FolderLock
from fed_lorac.studies.definition import Study, Trial
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.result import StudyResult, load_study
from fed_lorac.studies.rows import Finding
from fed_lorac.studies.watch import StudyWatch

__all__ = ["conduct", "planned"]


def conduct(study: Study, out: Path, *, workers: int = 1, watch: StudyWatch | None = None) -> StudyResult:
    """Run what the study lacks, into the folder `out`, and write its tables after each run.

    A run that is finished there is never run again, whoever asked for it: tuning runs of two arms, or a tuning run and
    one of the table, may be the same. One that was left in the middle goes on from its checkpoint; one that failed is
    tried again. A run whose settings have changed is another run. With several workers so many runs go at once, each in
    a Ray process of its own; runs with workers of their own are refused then.

    Raises:
        ConfigError: a trial's settings make no sense (nothing has been run then).
        RunError: the folder cannot be written, or another process is at work in it.
    """
    watch, folder, tuning = watch or StudyWatch(), StudyFolder(out), study.tuning_trials()
    trials = study.trials(first := _first_values(tuning))
    _check_workers([*tuning, *trials], workers)
    with FolderLock(out):
        if tuning:
            for findings in _progress(tuning, folder, workers, watch, to_come=len(trials)):
                folder.write_tuning(findings)
            trials = study.trials({**first, **folder.best(tuning)})
        for findings in _progress(trials, folder, workers, watch, before=len(_distinct(tuning))):
            folder.write_tables(findings)
    return load_study(out)


def planned(study: Study, out: Path) -> list[Finding]:
    """All runs of a study in the folder `out`, and how far each is. What tuning has not chosen yet has its first value.

    Raises:
        ConfigError: a trial's settings make no sense.
    """
    folder, tuning = StudyFolder(out), study.tuning_trials()
    trials = [*tuning, *study.trials({**_first_values(tuning), **folder.best(tuning)})]
    return [folder.finding(trial) for trial in _distinct(trials)]


def _first_values(tuning: Sequence[Trial]) -> dict[str, Mapping[str, object]]:
    """For each arm and point of the grid the first values that tuning tries: what it keeps where all of them fail."""
    return {trial.place: trial.tuned for trial in reversed(tuning)}


def _distinct(trials: Sequence[Trial]) -> list[Trial]:
    """Each run once: of trials that are the same run, the first."""
    first = dict[str, Trial]()
    for trial in trials:
        first.setdefault(trial.digest, trial)
    return list(first.values())


def _progress(
    trials: Sequence[Trial],
    folder: StudyFolder,
    workers: int,
    watch: StudyWatch,
    *,
    before: int = 0,
    to_come: int = 0,
) -> Iterator[list[Finding]]:
    """How far all of these are: at the beginning, and after each run that ends. `before`, `to_come`: the number of the
    study's other runs, before these and after them."""
    findings = [folder.finding(trial) for trial in trials]
    yield findings
    runs = _distinct(trials)
    finished = {finding.trial.digest for finding in findings if finding.status == "finished"}
    watch.begin(before + len(runs) + to_come, before + len(finished))
    for trial, error in _runs([trial for trial in runs if trial.digest not in finished], folder, workers, watch):
        if error is not None:
            folder.write_error(trial, error)
        watch.ended(trial, error)
        ended = trial.digest
        findings = [folder.finding(one.trial) if one.trial.digest == ended else one for one in findings]
        yield findings


def _check_workers(trials: Sequence[Trial], workers: int) -> None:
    for trial in trials if workers > 1 else ():
        own = trial.config.run
        if own.workers > 1 or own.engine != "fleet":
            raise ConfigError(
                f"Of a study's runs several go at once where each takes one process; {trial.name!r} has run.workers = "
                f'{own.workers}, run.engine = {own.engine!r}. Set these to 1 and "fleet", or run one at a time.'
            )


def _runs(
    todo: Sequence[Trial], folder: StudyFolder, workers: int, watch: StudyWatch
) -> Iterator[tuple[Trial, str | None]]:
    """Each run that is to do, as it ends, and the error where it failed."""
    for trial in todo:
        folder.clear_error(trial)
    if workers == 1 or not todo:
        for trial in todo:
            watch.started(trial)
            yield trial, _attempt(trial, folder)
        return
    from fed_lorac.grid.ray.tasks import run_tasks  # noqa: PLC0415  (one process needs no Ray)

    by_digest = {trial.digest: trial for trial in todo}
    tasks = {d: (one.config.to_flat(), str(folder.of(one)), folder.goes_on(one)) for d, one in by_digest.items()}
    share = _share(todo, workers)
    for digest, error in run_tasks(_do, tasks, share=share, started=lambda digest: watch.started(by_digest[digest])):
        yield by_digest[digest], error


def _share(todo: Sequence[Trial], workers: int) -> RunConfig:
    """What each of the processes takes of a node: the most that any run asks for."""
    runs = [trial.config.run for trial in todo]
    device = next((run.device for run in runs if run.device != "cpu"), "cpu")
    return RunConfig(workers=workers, threads=max((run.threads for run in runs), default=1), device=device)


def _attempt(trial: Trial, folder: StudyFolder) -> str | None:
    try:
        _do(trial.config, folder.of(trial), folder.goes_on(trial))
    except Exception as error:  # of somebody else's part, say: the other runs do not suffer for it
        return one_line(error)
    return None


def _do(config: Config | Mapping[str, object], folder: Path | str, goes_on: bool) -> None:
    """One run, in this process."""
    if goes_on:
        run(load_config(config), resume=folder, progress=False)
    else:
        run(load_config(config), out=folder, overwrite=True, progress=False)
