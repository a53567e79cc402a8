"""What a study is: a config, arms, a grid and seeds, and the trials that follow. Knows settings; not files or runs."""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fed_lorac.config import Config, load_config
from fed_lorac.config.resumed import WITHOUT_EFFECT
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.studies.search import Tuning, Values, points

__all__ = ["Arm", "Best", "Study", "Trial", "run_digest"]

_NOT_IN_A_STUDY = {"run.seed": "seeds", "run.out": "--out"}
"""Settings that a study gives its trials itself, and by what."""


def run_digest(config: Config) -> str:
    """What a run is, as 12 hexadecimal digits: every setting that can change a result, and the code of parts that are
    not built in."""
    settings = {k: v for k, v in config.to_flat().items() if not k.startswith(WITHOUT_EFFECT)}
    told = json.dumps(settings | config.outside(), sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Arm:
    """Settings that belong together, and those of them that are varied in this arm alone."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    grid: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One run of a study: its arm, its seed, the point of the grid, and the config that all this comes to.

    `tuned`: the values that tuning tries, or has chosen.
    """

    arm: str
    seed: int
    point: Mapping[str, object]
    config: Config
    tuned: Mapping[str, object] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The arm and the point of the grid: what is tuned by itself."""
        return _place(self.arm, self.point)

    @property
    def digest(self) -> str:
        """What the run is: see `run_digest`."""
        return run_digest(self.config)

    @property
    def name(self) -> str:
        """For people: the arm, the point of the grid, the seed."""
        return ", ".join([self.place, *(f"{key}={value}" for key, value in self.tuned.items()), f"seed {self.seed}"])

    @property
    def folder(self) -> str:
        """The name of the run's folder. The digest decides; what stands before it is for people."""
        settings = {**self.point, **self.tuned}
        words = [self.arm, *(f"{key.rpartition('.')[2]}-{value}" for key, value in settings.items())]
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)).strip("-.")[:80]
        return f"{slug}-seed{self.seed}-{self.digest}"


def _place(arm: str, point: Mapping[str, object]) -> str:
    return ", ".join([arm, *(f"{key}={value}" for key, value in point.items())])


Best = Mapping[str, Mapping[str, object]]
"""A trial's place -> the values that tuning chose for it."""


@dataclass(frozen=True)
class Study:
    """A study as its file says it.

    Raises:
        ConfigError: nothing to run, an unknown key, a setting that the study gives itself, a trial whose settings
            contradict one another, two trials that are the same run, or tuning on the table's images.
    """

    name: str
    config: str | Path
    seeds: tuple[int, ...] = (0,)
    settings: Mapping[str, object] = field(default_factory=dict)
    grid: Values = field(default_factory=dict)
    arms: tuple[Arm, ...] = ()
    title: str = ""
    tuning: Tuning | None = None

    def __post_init__(self) -> None:
        if not self.arms:
            raise ConfigError(
                f"A study has at least one arm; {self.name} has [arms] with none in it. Add one, as in [arms.full], or "
                "leave [arms] out: the settings are the only arm then."
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"A study has seeds, each once; {self.name} has {list(self.seeds)}. Change them.")
        grids = [
            self.grid,
            *(arm.grid for arm in self.arms),
            *([self.tuning.grid, self.tuning.ranges] if self.tuning else []),
        ]
        if short := [key for grid in grids for key in grid if "." not in key]:
            raise ConfigError(
                f"A grid names settings with their section, as in adapter.rank; {self.name} has {short[0]!r}."
            )
        if self.tuning:
            self._check_own(self.tuning)
        for key in itertools.chain(self.settings, *grids, *(arm.settings for arm in self.arms)):
            if key in _NOT_IN_A_STUDY:
                raise ConfigError(
                    f"A study gives each of its runs {key} itself; {self.name} sets it. Use {_NOT_IN_A_STUDY[key]}."
                )

    def _check_own(self, tuning: Tuning) -> None:
        """What is tuned is in no grid: its values would never be run. An arm's own values are of a setting that every
        arm tries values of, and as many: budgets are equal."""
        names, tuned = {arm.name for arm in self.arms}, {*tuning.grid, *tuning.ranges}
        for where, grid in [("grid", self.grid), *((f"arms.{arm.name!r}.grid", arm.grid) for arm in self.arms)]:
            if twice := sorted(tuned & set(grid)):
                raise ConfigError(
                    f"A setting is either tuned or in a grid; {self.name} tunes {twice[0]}, and {where} has it too. "
                    "Remove it there, or give the arm its own values to try, in tune.arms."
                )
        for name, its in tuning.arms.items():
            if name not in names:
                raise ConfigError(
                    f"tune.arms names arms of the study; {self.name} has {name!r} there.{did_you_mean(name, names)}"
                )
            for key, values in its.items():
                if len(values) != len(tuning.grid.get(key, ())) or tuning.search != "grid":
                    raise ConfigError(
                        "Every arm tries the same number of values of each setting in tune.grid; "
                        f"{self.name} has tune.arms.{name!r} with {len(values)} of {key}, and tune.grid has "
                        f"{len(tuning.grid.get(key, ()))}. Give it as many, only of settings in tune.grid, and no "
                        "tune.search."
                    )

    def tuning_trials(self) -> list[Trial]:
        """The runs that choose, for each arm and point of the grid, among the values of `tuning`; none without it."""
        if self.tuning is None:
            return []
        common = self._common(self.tuning.settings)
        found = [
            trial
            for arm in self.arms
            for tuned in self.tuning.points(arm.name)
            for trial in self._of_arm(common, arm, self.tuning.seed, lambda place, tuned=tuned: tuned)  # type: ignore[misc]
        ]
        self._check_images(found, apart=True)
        return found

    def trials(self, best: Best | None = None) -> list[Trial]:
        """The runs of the table, one seed after the other, so that a study that is not finished has whole seeds first.

        `best`: what tuning chose. A place that it could choose nothing for has no runs.
        """
        common, chosen = self._common({}), (best or {}).get
        found = [
            trial
            for seed in self.seeds
            for arm in self.arms
            for trial in self._of_arm(common, arm, seed, chosen if self.tuning else lambda place: {})
        ]
        if self.tuning:
            self._check_images(found, apart=False)
        first = dict[str, Trial]()
        for trial in found:
            if twin := first.get(trial.digest):
                raise ConfigError(
                    f"Each run of a study differs from the others; {twin.name!r} and {trial.name!r} have the same "
                    "settings. Remove one of the two."
                )
            first[trial.digest] = trial
        return found

    def _check_images(self, trials: Iterable[Trial], *, apart: bool) -> None:
        """Tuning is measured on images that are set `apart`, and the table on others."""
        for trial in trials:
            share = trial.config.fleet.validation_share
            if (share > 0) != apart:
                raise ConfigError(
                    "Tuning chooses on images that no table uses: fleet.validation_share sets them apart, in tuning "
                    f"runs only; it is {share:g} in {'tuning' if apart else 'a run of the table'}, {trial.name!r}. "
                    "Set settings.fleet.validation_share = 0.25 under [tune], and 0 elsewhere."
                )

    def _common(self, more: Mapping[str, object]) -> tuple[str | Path | Config, Mapping[str, object]]:
        """The config that all arms build on: with the study's settings, and whose tables of a choice are gone where an
        arm chooses otherwise. Where those settings hold with an arm's alone, they are still to be put on top of it."""
        settings = {**self.settings, **more}
        try:
            return load_config(self.config, settings), {}
        except ConfigError:
            return self.config, settings

    def _of_arm(
        self,
        common: tuple[str | Path | Config, Mapping[str, object]],
        arm: Arm,
        seed: int,
        tuned_of: Callable[[str], Mapping[str, object] | None],
    ) -> Iterator[Trial]:
        base, settings = common
        for point in points({**self.grid, **arm.grid}):
            tuned = tuned_of(place := _place(arm.name, point))
            if tuned is None:
                continue
            try:
                config = load_config(base, {**settings, **arm.settings, **point, **tuned, "run.seed": seed})
            except ConfigError as error:
                raise ConfigError(f"Each run of a study needs a valid config; that of {place!r}: {error}") from None
            yield Trial(arm.name, seed, point, config, tuned)
