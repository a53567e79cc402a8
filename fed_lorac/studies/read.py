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
arms.full.local.lr = [0.1, 0.3, 1.0] # as many, for an arm whose values lie elsewhere

# or: search = "random" (or "successive-halving"), budget = 9, ranges.local.lr = {low = 0.01, high = 1.0, log = true}
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fed_lorac.config import shipped_configs
from fed_lorac.config.load import flatten, shipped_folder
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.files import home_expanded
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.studies.definition import Arm, Study
from fed_lorac.studies.search import SEARCHES, Range, Tuning, Values

__all__ = ["load_definition", "parse_study", "shipped_studies"]

_KEYS = ("title", "config", "seeds", "settings", "grid", "arms", "tune")
_TUNE_KEYS = ("seed", "settings", "grid", "search", "budget", "ranges", "arms")
_SAID: Mapping[type, str] = {list: "list", dict: "table", str: "text"}


def parse_study(name: str, content: Mapping[str, Any], folder: Path) -> Study:
    """The study that TOML says; its config's path is seen from `folder`."""
    for key in content:
        if key not in _KEYS:
            raise ConfigError(f"A study's keys are {', '.join(_KEYS)}; {name} has {key!r}.{did_you_mean(key, _KEYS)}")
    if not content:
        raise ConfigError(f"A study says what to run: arms, a grid, or seeds; {name} is empty. See docs/studies.md.")
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
    table = _table(study, f"arms.{name}", content)
    settings = {key: value for key, value in table.items() if key != "grid"}
    return Arm(name, flatten(settings), _grid(table.get("grid", {}), f"{study}: arms.{name}.grid"))


def _table(study: str, key: str, content: object) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise ConfigError(f"An arm is a table of settings; {study} has {key} = {content!r}.")
    return content


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
    ranges = dict(_ranges(study, _typed(content, study, "ranges", dict, {})))
    if not grid and not ranges:
        raise ConfigError(f"Tuning chooses among values; {study} has [tune] and no tune.grid. Give it settings to try.")
    settings = flatten(_typed(content, study, "settings", dict, {}))
    own = {
        arm: _grid(_table(study, f"tune.arms.{arm}", its), f"{study}: tune.arms.{arm}")
        for arm, its in _typed(content, study, "arms", dict, {}).items()
    }
    return Tuning(grid, settings, seed, *_search(study, content, drawn=bool(ranges)), ranges, own)


def _search(study: str, content: Mapping[str, Any], *, drawn: bool) -> tuple[str, int]:
    """How values are found, and how many each arm may try."""
    search, budget = content.get("search", "grid"), content.get("budget", 0)
    if search not in SEARCHES:
        raise ConfigError(f"tune.search is one of {', '.join(SEARCHES)}; {study} has {search!r}.")
    if search == "grid" and (drawn or budget):
        key = "ranges" if drawn else "budget"
        raise ConfigError(
            f'tune.{key} is for values that are drawn; {study} has no tune.search. Set tune.search = "random".'
        )
    if search != "grid" and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 1):
        raise ConfigError(
            f"With tune.search, tune.budget is the number of values that each arm may try, at least 1; {study} has "
            f"{budget!r}. Set it."
        )
    return search, budget


def _ranges(study: str, content: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Range]]:
    for name, its in content.items():
        key = f"{within}{name}"
        if isinstance(its, Mapping) and any(isinstance(value, Mapping) for value in its.values()):
            yield from _ranges(study, its, f"{key}.")
            continue
        try:
            found = Range(**its)
            holds = found.low < found.high and isinstance(found.log, bool) and (found.low > 0 or not found.log)
        except TypeError:  # another key, or what is no number
            holds = False
        if not holds:
            raise ConfigError(
                f"A range has low and high, low below high, and above 0 where log = true, as in local.lr = "
                f"{{low = 0.01, high = 1.0, log = true}}; {study} has tune.ranges.{key} = {its}."
            )
        yield key, found


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
