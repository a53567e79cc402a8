"""A part of a study, and how much work its runs are. Knows arms, seeds and settings; not files or runs."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.studies.definition import Study, Trial

__all__ = ["Part", "work_of"]

_ALL = 50_000
"""Training images that a fleet is taken to have, where a config says no number."""


@dataclass(frozen=True)
class Part:
    """Some arms and seeds of a study; of either, none named means all.

    Raises:
        ConfigError: the study has no such arm, or seed.
    """

    study: Study
    arms: Collection[str] = ()
    seeds: Collection[int] = ()

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.study.arms]
        for arm in self.arms:
            if arm not in names:
                raise ConfigError(
                    f"The arms of this study are {', '.join(map(repr, names))}; got {arm!r}.{did_you_mean(arm, names)}"
                )
        for seed in self.seeds:
            if seed not in self.study.seeds:
                raise ConfigError(
                    f"The seeds of this study are {', '.join(map(str, self.study.seeds))}; got {seed}. "
                    "Choose one of these."
                )

    def tuned(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those of the tuning runs that are its own: they have one seed, whatever the seeds of the table."""
        return [trial for trial in trials if not self.arms or trial.arm in self.arms]

    def of(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those of the table's runs that are its own."""
        return [trial for trial in self.tuned(trials) if not self.seeds or trial.seed in self.seeds]


def work_of(config: Config, rounds: int | None = None) -> float:
    """About how much work a run is, or so many rounds of it, in images that its cameras train on: what the time left is
    told by."""
    run, fleet, local = config.run, config.fleet, config.local
    images = fleet.images or _ALL / fleet.cameras
    each = local.epochs * images * (1 - fleet.validation_share) or local.steps * local.batch_size
    return (run.rounds if rounds is None else rounds) * fleet.per_round * each
