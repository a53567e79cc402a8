"""What a study is: a base config, arms, a grid and seeds, and the trials that follow. Knows TOML and configs; not runs.

config = "fog_snow_noise"      # a shipped name, or the path of a TOML file, seen from the study's own folder
seeds = [0, 1, 2]

[settings]                     # in every trial, on top of the config
run.rounds = 10

[grid]                         # every combination of these
fleet.cameras = [12, 24]

[arms.full]                    # settings that belong together, under a name
adapter.method = "full"
strategy.name = "fedavg"

[arms.lora-c]
adapter.method = "lora-c"
grid.adapter.rank = [1, 2, 4]  # of this arm alone
"""

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fed_lorac.config import Config, load_config, shipped_configs
from fed_lorac.config.load import flatten, shipped_folder
from fed_lorac.config.resumed import WITHOUT_EFFECT
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.files import home_expanded
from fed_lorac.runtime.near import did_you_mean

__all__ = ["Arm", "Study", "Trial", "load_definition", "shipped_studies"]

_KEYS = ("title", "config", "seeds", "settings", "grid", "arms")
_NOT_IN_A_STUDY = {"run.seed": "seeds", "run.out": "--out"}
"""Settings that a study gives its trials itself, and by what."""
_SAID: Mapping[type, str] = {list: "list", dict: "table", str: "text"}

Values = Mapping[str, Sequence[object]]
"""Settings, and the values of each that are tried."""


@dataclass(frozen=True)
class Arm:
    """Settings that belong together, and those of them that are varied in this arm alone."""

    name: str
    settings: Mapping[str, object] = field(default_factory=dict)
    grid: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One run of a study: its arm, its seed, the point of the grid, and the config that all this comes to."""

    arm: str
    seed: int
    point: Mapping[str, object]
    config: Config

    @property
    def digest(self) -> str:
        """What the run is, as 12 hexadecimal digits: every setting that can change a result."""
        settings = {k: v for k, v in self.config.to_flat().items() if not k.startswith(WITHOUT_EFFECT)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """For people: the arm, the point of the grid, the seed."""
        return ", ".join([self.arm, *(f"{key}={value}" for key, value in self.point.items()), f"seed {self.seed}"])

    @property
    def folder(self) -> str:
        """The name of the run's folder. The digest decides; what stands before it is for people."""
        words = [self.arm, *(f"{key.rpartition('.')[2]}-{value}" for key, value in self.point.items())]
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(words)).strip("-.")[:80]
        return f"{slug}-seed{self.seed}-{self.digest}"


@dataclass(frozen=True)
class Study:
    """A study as its file says it.

    Raises:
        ConfigError: nothing to run, an unknown key, a setting that the study gives itself, a trial whose settings
            contradict one another, or two trials that are the same run.
    """

    name: str
    config: str | Path
    seeds: tuple[int, ...] = (0,)
    settings: Mapping[str, object] = field(default_factory=dict)
    grid: Values = field(default_factory=dict)
    arms: tuple[Arm, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"A study has seeds, each once; {self.name} has {list(self.seeds)}. Change them.")
        if short := [key for key in (*self.grid, *(key for arm in self.arms for key in arm.grid)) if "." not in key]:
            raise ConfigError(
                f"A grid names settings with their section, as in adapter.rank; {self.name} has {short[0]!r}."
            )
        for key in itertools.chain(self.settings, self.grid, *((*arm.settings, *arm.grid) for arm in self.arms)):
            if key in _NOT_IN_A_STUDY:
                raise ConfigError(
                    f"A study gives each of its runs {key} itself; {self.name} sets it. Use {_NOT_IN_A_STUDY[key]}."
                )

    @classmethod
    def parse(cls, name: str, content: Mapping[str, Any], folder: Path) -> Self:
        """The study that TOML says; its config's path is seen from `folder`."""
        for key in content:
            if key not in _KEYS:
                raise ConfigError(
                    f"A study's keys are {', '.join(_KEYS)}; {name} has {key!r}.{did_you_mean(key, _KEYS)}"
                )
        seeds = _typed(content, name, "seeds", list, [0])
        if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
            raise ConfigError(f"A study's seeds are whole numbers; {name} has {seeds}.")
        arms = _typed(content, name, "arms", dict, {name: {}})
        return cls(
            name,
            _config_of(_typed(content, name, "config", str, "quickstart"), folder),
            tuple(seeds),
            flatten(_typed(content, name, "settings", dict, {})),
            _grid(_typed(content, name, "grid", dict, {}), f"{name}: grid"),
            tuple(_arm(name, arm, its) for arm, its in arms.items()),
            _typed(content, name, "title", str, ""),
        )

    def trials(self) -> list[Trial]:
        """All runs, one seed after the other, so that a study that is not finished has whole seeds first."""
        base = load_config(self.config, self.settings)
        found = [trial for seed in self.seeds for arm in self.arms for trial in self._of_arm(base, arm, seed)]
        first = dict[str, Trial]()
        for trial in found:
            if twin := first.get(trial.digest):
                raise ConfigError(
                    f"Each run of a study differs from the others; {twin.name!r} and {trial.name!r} have the same "
                    "settings. Remove one of the two."
                )
            first[trial.digest] = trial
        return found

    def _of_arm(self, base: Config, arm: Arm, seed: int) -> Iterator[Trial]:
        grid = {**self.grid, **arm.grid}
        for values in itertools.product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            try:
                config = load_config(base, {**arm.settings, **point, "run.seed": seed})
            except ConfigError as error:
                said = ", ".join([arm.name, *(f"{key}={value}" for key, value in point.items())])
                raise ConfigError(f"Each run of a study needs a config that holds; that of {said!r}: {error}") from None
            yield Trial(arm.name, seed, point, config)


def shipped_studies() -> dict[str, Path]:
    """The studies that travel with the package, and their files."""
    return {path.stem: path for path in sorted((shipped_folder() / "studies").glob("*.toml"))}


def load_definition(source: Path | str) -> Study:
    """The study in a TOML file, or the shipped one of a name.

    Raises:
        ConfigError: there is no such file, it is not TOML, or it is no study (see `Study`).
    """
    shipped = shipped_studies()
    if isinstance(source, str) and not ("/" in source or source.endswith(".toml")) and source not in shipped:
        raise ConfigError(
            f"A study is a TOML file, or one of {', '.join(shipped) or 'none yet'}; got {source!r}."
            f"{did_you_mean(source, tuple(shipped))}"
        )
    file = shipped[str(source)] if str(source) in shipped else home_expanded(source).absolute()
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"A study is a TOML file; {file}: {error}.") from None
    return Study.parse(file.stem, content, file.parent)


def _config_of(said: str, folder: Path) -> str | Path:
    if said in shipped_configs() or not ("/" in said or said.endswith(".toml")):
        return said
    return folder / home_expanded(said)


def _arm(study: str, name: str, content: object) -> Arm:
    if not isinstance(content, Mapping):
        raise ConfigError(f"An arm is a table of settings; {study} has arms.{name} = {content!r}.")
    settings = {key: value for key, value in content.items() if key != "grid"}
    return Arm(name, flatten(settings), _grid(content.get("grid", {}), f"{study}: arms.{name}.grid"))


def _grid(content: Mapping[str, Any], where: str) -> Values:
    found = flatten(content)
    for key, values in found.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"A grid gives each setting a list of values to try; {where} has {key} = {values!r}.")
    return found  # type: ignore[return-value]


def _typed(content: Mapping[str, Any], name: str, key: str, kind: type, default: Any) -> Any:
    value = content.get(key, default)
    if not isinstance(value, kind):
        raise ConfigError(f"A study's {key} is a {_SAID[kind]}; {name} has {value!r}.")
    return value
