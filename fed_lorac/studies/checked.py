"""A study's runs, all checked before any is run. Knows trials; not files or runs."""

from collections.abc import Mapping, Sequence

from fed_lorac.config import FleetEngine
from fed_lorac.errors import ConfigError
from fed_lorac.studies.definition import Study, Trial
from fed_lorac.studies.search import HALVING, Tuning

__all__ = ["checked", "distinct", "first_values"]


def checked(study: Study, workers: int) -> tuple[list[Trial], list[Trial]]:
    """The tuning runs of a study, and those of its table with the first values that tuning tries.

    Raises:
        ConfigError: the settings of one make no sense, it does not run beside others where several `workers` are asked
            for, or a search could not compare its runs.
    """
    tuning = study.tuning_trials()
    trials = study.trials(first_values(tuning))
    _check_workers([*tuning, *trials], workers)
    if study.tuning:
        _check_stages(study.tuning, tuning)
    return tuning, trials


def first_values(tuning: Sequence[Trial]) -> dict[str, Mapping[str, object]]:
    """For each arm and point of the grid the first values that tuning tries: what it keeps where all of them fail."""
    return {trial.place: trial.tuned for trial in reversed(tuning)}


def distinct(trials: Sequence[Trial]) -> list[Trial]:
    """Each run once: of trials that are the same run, the first."""
    first = dict[str, Trial]()
    for trial in trials:
        first.setdefault(trial.digest, trial)
    return list(first.values())


def _check_workers(trials: Sequence[Trial], workers: int) -> None:
    for trial in trials if workers > 1 else ():
        own = trial.config.run
        if own.workers > 1 or own.engine != "fleet":
            raise ConfigError(
                f"A study runs several at once only if each takes one process; {trial.name!r} has run.workers = "
                f'{own.workers}, run.engine = {own.engine!r}. Set these to 1 and "fleet", or run one at a time.'
            )


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
