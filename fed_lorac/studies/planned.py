"""What is left to do of a study, before any is run: which runs, how many rounds, about how long. Knows trials and
folders; not what a run computes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_lorac.studies.checked import checked, distinct, first_values
from fed_lorac.studies.definition import Study, Trial
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.part import Part, work_of
from fed_lorac.studies.rows import Finding
from fed_lorac.studies.search import Tuning

__all__ = ["Planned", "planned", "seconds_to_come"]


@dataclass(frozen=True)
class Planned:
    """A run and how far it came. `rounds_left`: that it has still to make; None: nothing is left to do of it."""

    finding: Finding
    rounds_left: int | None


def planned(study: Study, out: Path, part: Part | None = None, workers: int = 1) -> list[Planned]:
    """All runs of a study, or of a part of it, in the folder `out`, and how far each is. What tuning has not chosen yet
    has its first value, and where a search has not measured all, it is taken to go on with the first of the others.

    Raises:
        ConfigError: the study could not be run, as `conduct` says.
    """
    folder, part, (tuning, _) = StudyFolder(out), part or Part(study), checked(study, workers)
    own, best = part.tuned(tuning), {**first_values(tuning), **folder.best(tuning)}
    tried, until = dict[str, Finding](), dict[str, int]()
    if study.tuning:
        tried = {trial.digest: folder.tried(trial, study.tuning) for trial in distinct(own)}
        until = _until(folder, study.tuning, own)
    return [
        Planned(tried.get(trial.digest) or folder.finding(trial), _rounds_left(folder, trial, until.get(trial.digest)))
        for trial in distinct([*own, *part.of(study.trials(best))])
    ]


def seconds_to_come(runs: Iterable[Planned]) -> float | None:
    """About how long what is left takes, one run after another, from what finished ones took for the images that they
    trained on; None: nothing is known yet."""
    runs = list(runs)
    took = [(run.finding.seconds, work_of(run.finding.trial.config)) for run in runs if run.finding.seconds is not None]
    left = sum(work_of(run.finding.trial.config, run.rounds_left or 0) for run in runs)
    work = sum(images for _, images in took)
    return left * sum(seconds for seconds, _ in took) / work if work else None


def _until(folder: StudyFolder, tuning: Tuning, trials: Sequence[Trial]) -> dict[str, int]:
    """Each tuning run that a search stops early -> the round."""
    *early, last = tuning.stages(trials[0].config.run.rounds)
    found, left = dict.fromkeys((trial.digest for trial in trials), last), trials
    for after in early:
        ahead = folder.ahead(left, after, foreseen=True)
        on = {trial.digest for trial in ahead}
        found |= {trial.digest: after for trial in left if trial.digest not in on}
        left = ahead
    return {digest: rounds for digest, rounds in found.items() if rounds < last}


def _rounds_left(folder: StudyFolder, trial: Trial, until: int | None) -> int | None:
    if folder.has(trial, until):
        return None
    return max(0, (until or trial.config.run.rounds) - folder.rounds_of(trial))
