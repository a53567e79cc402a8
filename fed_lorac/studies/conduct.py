"""Running a study: what is finished stays, what was left goes on, what fails is a row. Knows trials and folders; not
what a run computes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_lorac.runtime.lock import FolderLock
from fed_lorac.studies.checked import checked, distinct, first_values
from fed_lorac.studies.definition import Study, Trial
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.part import Part, work_of
from fed_lorac.studies.result import StudyResult, load_study
from fed_lorac.studies.running import runs
from fed_lorac.studies.search import Tuning
from fed_lorac.studies.watch import StudyWatch

__all__ = ["conduct"]


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
    watch, folder, part = watch or StudyWatch(), StudyFolder(out), part or Part(study)
    tuning, trials = checked(study, workers)
    with FolderLock(out):
        ours = _Ours(folder, workers, watch)
        if study.tuning:
            ours.to_come = distinct(part.of(trials))
            _tune(study.tuning, tuning, part.tuned(tuning), ours)
            ours.to_come, trials = [], study.trials({**first_values(tuning), **folder.best(tuning)})
        else:
            folder.drop_tuning()
        findings = [folder.finding(trial) for trial in trials]
        folder.write_tables(findings)
        for ended in ours.run(part.of(trials)):
            findings = [folder.finding(its.trial) if its.trial.digest == ended else its for its in findings]
            folder.write_tables(findings)
    return load_study(out)


def _tune(tuning: Tuning, trials: Sequence[Trial], own: Sequence[Trial], ours: "_Ours") -> None:
    """Run what tuning tries, stage by stage: those of `trials` that are `own`."""
    stages, left = tuning.stages(trials[0].config.run.rounds), list(own)
    ours.folder.write_tuning(trials, tuning)
    for after in stages:
        last = after == stages[-1]
        for _ in ours.run(left, None if last else after):
            ours.folder.write_tuning(trials, tuning)
        left = [] if last else ours.folder.ahead(left, after)


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
        ours = distinct(trials)
        todo = [trial for trial in ours if not self.folder.has(trial, until)]
        work = {trial.digest: self._work(trial, until) for trial in todo}
        later = sum(self._work(trial) for trial in self.to_come if not self.folder.has(trial))
        self.watch.begin(
            self.done + len(ours) + len(self.to_come),
            self.done + len(ours) - len(todo),
            sum(work.values()) + later,
        )
        self.done += len(ours)
        for trial, error in runs(todo, self.folder, self.workers, self.watch, until):
            if error is not None:
                self.folder.write_error(trial, error)
            self.watch.ended(trial, error, work[trial.digest])
            yield trial.digest

    def _work(self, trial: Trial, until: int | None = None) -> float:
        """Of the rounds that it lacks."""
        rounds = trial.config.run.rounds if until is None else until
        return work_of(trial.config, max(0, rounds - self.folder.rounds_of(trial)))
