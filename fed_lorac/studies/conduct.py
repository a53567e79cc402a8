"""Running a study: what is finished stays, what was left goes on, what fails is a row. Knows trials and folders; not
what a run computes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_lorac.config import FleetEngine
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.lock import FolderLock
from fed_lorac.studies.definition import Study, Trial
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.part import Part, work_of
from fed_lorac.studies.result import StudyResult, load_study
from fed_lorac.studies.rows import Finding
from fed_lorac.studies.running import runs
from fed_lorac.studies.search import HALVING, Tuning
from fed_lorac.studies.watch import StudyWatch

__all__ = ["conduct", "planned"]


def conduct(
    study: Study, out: Path, *, workers: int = 1, watch: StudyWatch | None = None, part: Part | None = None
) -> StudyResult:
    """Run what the study lacks, into the folder `out`, and write its tables after each run.

    A run that is finished there is never run again, whoever asked for it: tuning runs of two arms may be the same. One
    that was left in the middle goes on from its checkpoint; one that failed is tried again. A run whose settings have
    changed is another run. With several workers so many runs go at once, each in a Ray process of its own; runs with
    workers of their own are refused then. Of a `part` only its own runs are run: the tables have the others as they
    are.

    Raises:
        ConfigError: a trial's settings make no sense (nothing has been run then).
        RunError: the folder cannot be written, or another process is at work in it.
    """
    watch, folder, tuning = watch or StudyWatch(), StudyFolder(out), study.tuning_trials()
    trials = study.trials(first := _first_values(tuning))
    _check_workers([*tuning, *trials], workers)
    if study.tuning:
        _check_stages(study.tuning, tuning)
    part = part or Part(study)
    with FolderLock(out):
        ours = _Ours(folder, workers, watch)
        if study.tuning:
            ours.to_come = _distinct(part.of(trials))
            _tune(study.tuning, tuning, part.tuned(tuning), ours)
            ours.to_come, trials = [], study.trials({**first, **folder.best(tuning)})
        else:
            folder.drop_tuning()
        findings = [folder.finding(trial) for trial in trials]
        folder.write_tables(findings)
        for ended in ours.run(part.of(trials)):
            findings = [folder.finding(its.trial) if its.trial.digest == ended else its for its in findings]
            folder.write_tables(findings)
    return load_study(out)


def planned(study: Study, out: Path, part: Part | None = None) -> list[Finding]:
    """All runs of a study, or of a part of it, in the folder `out`, and how far each is. What tuning has not chosen yet
    has its first value.

    Raises:
        ConfigError: a trial's settings make no sense.
    """
    folder, tuning = StudyFolder(out), study.tuning_trials()
    part, best = part or Part(study), {**_first_values(tuning), **folder.best(tuning)}
    trials = [*part.tuned(tuning), *part.of(study.trials(best))]
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
                f"run.evaluate_every is {run.evaluate_every}. Set it to 1."
            )
        if run.engine != "fleet" or not run.table(FleetEngine).checkpoint_every:
            raise ConfigError(
                'Successive halving stops runs that go on later, from their checkpoints. Set run.engine to "fleet" and '
                "run.fleet.checkpoint_every to 1."
            )


def _tune(tuning: Tuning, trials: Sequence[Trial], own: Sequence[Trial], ours: "_Ours") -> None:
    """Run what tuning tries, stage by stage: those of `trials` that are `own`."""
    stages, left = tuning.stages(trials[0].config.run.rounds), list(own)
    ours.folder.write_tuning(trials, tuning)
    for after in stages:
        last = after == stages[-1]
        for _ in ours.run(left, None if last else after):
            ours.folder.write_tuning(trials, tuning)
        left = [] if last else ours.folder.ahead(left, after)


def _first_values(tuning: Sequence[Trial]) -> dict[str, Mapping[str, object]]:
    """For each arm and point of the grid the first values that tuning tries: what it keeps where all of them fail."""
    return {trial.place: trial.tuned for trial in reversed(tuning)}


def _distinct(trials: Sequence[Trial]) -> list[Trial]:
    """Each run once: of trials that are the same run, the first."""
    first = dict[str, Trial]()
    for trial in trials:
        first.setdefault(trial.digest, trial)
    return list(first.values())


@dataclass
class _Ours:
    """The runs of a study that this process makes: which it has made, and `to_come`, those after the ones at hand."""

    folder: StudyFolder
    workers: int
    watch: StudyWatch
    to_come: Sequence[Trial] = ()
    done: int = 0

    def run(self, trials: Sequence[Trial], until: int | None = None) -> Iterator[str]:
        """Run what is left of these, to the end or the round `until`; give each one's digest as it ends."""
        distinct = _distinct(trials)
        todo = [trial for trial in distinct if not self._is_there(trial, until)]
        work = {trial.digest: self._work(trial, until) for trial in todo}
        later = sum(self._work(trial) for trial in self.to_come if not self._is_there(trial))
        self.watch.begin(
            self.done + len(distinct) + len(self.to_come),
            self.done + len(distinct) - len(todo),
            sum(work.values()) + later,
        )
        self.done += len(distinct)
        for trial, error in runs(todo, self.folder, self.workers, self.watch, until):
            if error is not None:
                self.folder.write_error(trial, error)
            self.watch.ended(trial, error, work[trial.digest])
            yield trial.digest

    def _is_there(self, trial: Trial, until: int | None = None) -> bool:
        if self.folder.finding(trial).status == "finished":
            return True
        return until is not None and self.folder.accuracy_after(trial, until) is not None

    def _work(self, trial: Trial, until: int | None = None) -> float:
        """Of the rounds that it lacks."""
        rounds = trial.config.run.rounds if until is None else until
        return work_of(trial.config, max(0, rounds - self.folder.rounds_of(trial)))


def _check_workers(trials: Sequence[Trial], workers: int) -> None:
    for trial in trials if workers > 1 else ():
        own = trial.config.run
        if own.workers > 1 or own.engine != "fleet":
            raise ConfigError(
                f"A study runs several at once only if each takes one process; {trial.name!r} has run.workers = "
                f'{own.workers}, run.engine = {own.engine!r}. Set these to 1 and "fleet", or run one at a time.'
            )
