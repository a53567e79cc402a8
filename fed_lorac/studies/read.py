"""A study out of TOML. Knows keys and files; not which runs follow.

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

[tune]                         # first, with one seed: every arm with each of these; its best goes into its runs
grid.local.lr = [0.01, 0.03, 0.1]
settings.fleet.validation_share = 0.25
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fed_lorac.config import shipped_configs
from fed_lorac.config.load import flatten, shipped_folder
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.files import home_expanded
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.studies.definition import Arm, Study, Tuning, Values

__all__ = ["load_definition", "parse_study", "shipped_studies"]

_KEYS = ("title", "config", "seeds", "settings", "grid", "arms", "tune")
_TUNE_KEYS = ("seed", "settings", "grid")
_SAID: Mapping[type, str] = {list: "list", dict: "table", str: "text"}


def parse_study(name: str, content: Mapping[str, Any], folder: Path) -> Study:
    """The study that TOML says; its config's path is seen from `folder`."""
    for key in content:
        if key not in _KEYS:
            raise ConfigError(f"A study's keys are {', '.join(_KEYS)}; {name} has {key!r}.{did_you_mean(key, _KEYS)}")
    seeds = _typed(content, name, "seeds", list, [0])
    if not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise ConfigError(f"A study's seeds are whole numbers; {name} has {seeds}.")
    arms = _typed(content, name, "arms", dict, {name: {}})
    return Study(
        name,
        _config_of(_typed(content, name, "config", str, "quickstart"), folder),
        tuple(seeds),
        flatten(_typed(content, name, "settings", dict, {})),
        _grid(_typed(content, name, "grid", dict, {}), f"{name}: grid"),
        tuple(_arm(name, arm, its) for arm, its in arms.items()),
        _typed(content, name, "title", str, ""),
        _tuning(name, _typed(content, name, "tune", dict, {}), seeds),
    )


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
    return parse_study(file.stem, content, file.parent)


def _config_of(said: str, folder: Path) -> str | Path:
    if said in shipped_configs() or not ("/" in said or said.endswith(".toml")):
        return said
    return folder / home_expanded(said)


def _arm(study: str, name: str, content: object) -> Arm:
    if not isinstance(content, Mapping):
        raise ConfigError(f"An arm is a table of settings; {study} has arms.{name} = {content!r}.")
    settings = {key: value for key, value in content.items() if key != "grid"}
    return Arm(name, flatten(settings), _grid(content.get("grid", {}), f"{study}: arms.{name}.grid"))


def _tuning(study: str, content: Mapping[str, Any], seeds: Sequence[int]) -> Tuning | None:
    if not content:
        return None
    for key in content:
        if key not in _TUNE_KEYS:
            raise ConfigError(f"A study's [tune] has {', '.join(_TUNE_KEYS)}; {study} has {key!r} there.")
    seed = content.get("seed", seeds[0] if seeds else 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ConfigError(f"A seed is a whole number; {study} has tune.seed = {seed!r}.")
    grid = _grid(_typed(content, study, "grid", dict, {}), f"{study}: tune.grid")
    if not grid:
        raise ConfigError(f"Tuning chooses among values; {study} has [tune] and no tune.grid. Give it settings to try.")
    return Tuning(grid, flatten(_typed(content, study, "settings", dict, {})), seed)


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
