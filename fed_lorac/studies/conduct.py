"""Running a study: what is finished stays, what was left goes on, what fails is a row. Knows trials and folders; not
what a run computes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fed_lorac.config import FleetEngine
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.lock import FolderLock
from fed_lorac.studies.definition import Study, Trial
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.result import StudyResult, load_study
from fed_lorac.studies.rows import Finding
from fed_lorac.studies.running import runs
from fed_lorac.studies.search import HALVING, Tuning
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
    if study.tuning:
        _check_stages(study.tuning, tuning)
    with FolderLock(out):
        tried = 0
        if study.tuning:
            tried = _tune(study.tuning, tuning, folder, workers, watch, to_come=len(trials))
            trials = study.trials({**first, **folder.best(tuning)})
        for findings in _progress(trials, folder, workers, watch, before=tried):
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


def _check_stages(tuning: Tuning, trials: Sequence[Trial]) -> None:
    """Raise `ConfigError` where runs cannot be compared after so many rounds, or cannot go on from there."""
    asked = [trial.config.run for trial in trials]
    if tuning.search != HALVING:
        return
    if len({run.rounds for run in asked}) > 1:
        raise ConfigError(
            "Successive halving compares runs of one length; these are of "
            f"{sorted({run.rounds for run in asked})} rounds. Set run.rounds in [tune.settings]."
        )
    early = tuning.stages(asked[0].rounds)[:-1]
    for run in asked:
        if any(rounds % run.evaluate_every for rounds in early):
            raise ConfigError(
                f"Successive halving compares runs after rounds {', '.join(map(str, early))}, which must be measured; "
                f"run.evaluate_every is {run.evaluate_every}. Set it to 1 there."
            )
        if run.engine != "fleet" or not run.table(FleetEngine).checkpoint_every:
            raise ConfigError(
                'Successive halving stops runs that go on later, from their checkpoints. Set run.engine to "fleet" and '
                "run.fleet.checkpoint_every to 1."
            )


def _tune(
    tuning: Tuning,
    trials: Sequence[Trial],
    folder: StudyFolder,
    workers: int,
    watch: StudyWatch,
    *,
    to_come: int,
) -> int:
    """Run what tuning tries, stage by stage; return how many runs that were. `to_come`: the study's runs after it."""
    stages, left, done = tuning.stages(trials[0].config.run.rounds), list(trials), 0
    for after in stages:
        last = after == stages[-1]
        for _ in _progress(left, folder, workers, watch, None if last else after, before=done, to_come=to_come):
            folder.write_tuning(trials, tuning)
        done += len(_distinct(left))
        left = [] if last else folder.ahead(left, after)
    return done


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
    until: int | None = None,
    *,
    before: int = 0,
    to_come: int = 0,
) -> Iterator[list[Finding]]:
    """How far all of these are: at the beginning, and after each run that ends, or is stopped after the round `until`.
    `before`, `to_come`: the number of the study's other runs, before these and after them."""
    findings = [folder.finding(trial) for trial in trials]
    yield findings
    distinct = _distinct(trials)
    finished = {its.trial.digest for its in findings if its.status == "finished"} | {
        trial.digest for trial in distinct if until and folder.accuracy_after(trial, until) is not None
    }
    watch.begin(before + len(distinct) + to_come, before + len(finished))
    for trial, error in runs(
        [trial for trial in distinct if trial.digest not in finished], folder, workers, watch, until
    ):
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
