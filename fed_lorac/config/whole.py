"""The whole config: nested and frozen, flat for Flower, and as TOML. Knows sections; not files."""

import math
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fed_lorac.config.compatibility import contradictions
from fed_lorac.config.gone import renamed
from fed_lorac.config.section import OPTIONS, Section
from fed_lorac.config.sections import (
    AdapterConfig,
    BatchNormConfig,
    CodecConfig,
    DataConfig,
    FleetConfig,
    LocalConfig,
    ModelConfig,
    RunConfig,
    StrategyConfig,
)
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.near import nearest
from fed_lorac.runtime.settings import Rule, Scalar
from fed_lorac.runtime.spelling import came, toml

__all__ = ["SECTIONS", "Config", "parsed_options", "rules"]

SECTIONS: dict[str, type[Section]] = {
    "run": RunConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "fleet": FleetConfig,
    "adapter": AdapterConfig,
    "local": LocalConfig,
    "batch_norm": BatchNormConfig,
    "strategy": StrategyConfig,
    "codec": CodecConfig,
}

_WIDTH = 120
_TOLD = 10  # unknown keys that an error names


def rules() -> dict[str, Rule]:
    """Every known key, `section.key`, and its rule."""
    return {f"{name}.{key}": rule for name, section in SECTIONS.items() for key, rule in section.rules().items()}


@dataclass(frozen=True)
class Config:
    """Everything a run is asked. An invalid or contradictory one cannot be built: `ConfigError`."""

    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    fleet: FleetConfig = field(default_factory=FleetConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)

    def __post_init__(self) -> None:
        if found := list(contradictions(self)):
            raise ConfigError("\n".join(found))

    @property
    def quorum_cameras(self) -> int:
        """How many replies a round needs: `strategy.quorum` of the drawn cameras, rounded up, at least one."""
        # 0.1 * 30 is 3.0000000000000004: rounding that up would ask for a fourth camera.
        return max(1, math.ceil(round(self.strategy.quorum * self.fleet.per_round, 9)))

    @classmethod
    def from_flat(cls, flat: Mapping[str, object]) -> Self:
        """The config of Flower's run-config, `{"section.key": scalar}`; a key that is absent has its default.

        Flower's run-config has every key there is: an option whose choice is not made is left out if it has its
        default, and refused else.
        """
        if found := list(renamed(flat)):
            raise ConfigError("\n".join(_some(found)))
        if unknown := [key for key in flat if not _has_a_place(key)]:
            raise ConfigError("\n".join(_some([_unknown(key) for key in unknown])))
        made: dict[str, Any] = {name: _section(section, flat) for name, section in SECTIONS.items()}
        return cls(**made)

    def to_flat(self) -> dict[str, Scalar]:
        """`{"section.key": scalar}` for every key that is in force, as Flower's run-config carries it."""
        return {key: value for key, value, _ in self._items()}

    def outside(self) -> dict[str, str]:
        """Each package of somebody else's that a part is from -> which code that is."""
        sections: list[Section] = [getattr(self, name) for name in SECTIONS]
        return {package: code for section in sections for package, code in section.outside().items()}

    def changed(self) -> dict[str, Scalar]:
        """Those of `to_flat` that differ from their defaults."""
        return {key: value for key, value, rule in self._items() if rule is None or value != rule.default}

    def to_toml(self) -> str:
        """The resolved config as TOML: every key, each with what it means; reading it gives this config again."""
        return "\n".join(table for name in SECTIONS for table in self._tables(name))

    def _items(self) -> Iterator[tuple[str, Scalar, Rule | None]]:
        """Key, value and rule; the options of what is not built in are one text, and so without a rule."""
        for section in (getattr(self, name) for name in SECTIONS):
            for key, rule in section.in_view(vars(section)).items():
                yield f"{section.section}.{key}", getattr(section, key), rule
            for name, rules in section.tables_of(vars(section)).items():
                table = section.tables[name]
                if name == OPTIONS:
                    yield f"{section.section}.{name}", toml(table)[1:-1], None
                else:
                    yield from ((f"{section.section}.{name}.{key}", table[key], rule) for key, rule in rules.items())

    def _tables(self, name: str) -> Iterator[str]:
        """A section, then each of its tables."""
        section: Section = getattr(self, name)
        yield _table(name, vars(section), section.in_view(vars(section)))
        for table, rules in section.tables_of(vars(section)).items():
            yield _table(f"{name}.{table}", section.tables[table], rules)


def _table(path: str, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> str:
    lines = [line for key, rule in rules.items() for line in _explained(f"{key} = {toml(values[key])}", rule.told)]
    return "\n".join([f"[{path}]", *lines, ""])


def _explained(line: str, meaning: str) -> list[str]:
    """A setting with its meaning behind it, or above it where the line would be too long."""
    if len(short := f"{line}  # {meaning}") <= _WIDTH:
        return [short]
    return [*(f"# {part}" for part in textwrap.wrap(meaning, _WIDTH - 2, break_on_hyphens=False)), line]


def _some(lines: list[str]) -> list[str]:
    """The first few, and how many more there are."""
    more = [f"The same is true of {len(lines) - _TOLD} more keys."] if len(lines) > _TOLD else []
    return lines[:_TOLD] + more


def _has_a_place(key: str) -> bool:
    """Whether a key is one in view, or might stand in a table of its section."""
    name, _, rest = key.partition(".")
    return name in SECTIONS and ("." in rest or rest == OPTIONS or rest in SECTIONS[name].rules())


def _section(section: type[Section], flat: Mapping[str, object]) -> Section:
    own = {key.partition(".")[2]: value for key, value in flat.items() if key.startswith(f"{section.section}.")}
    in_view = {key: value for key, value in own.items() if key in section.rules()}
    tables: dict[str, dict[str, Any]] = {}
    for path, value in own.items():
        table, _, key = path.partition(".")
        if path == OPTIONS:
            tables.setdefault(OPTIONS, {}).update(parsed_options(f"{section.section}.{path}", value))
        elif key:
            tables.setdefault(table, {})[key] = value
    in_force = section.tables_of(in_view)
    kept = {name: its for name, its in tables.items() if name in in_force or not _at_rest(section, name, its)}
    return section(**in_view, tables=kept)


def _at_rest(section: type[Section], table: str, values: Mapping[str, object]) -> bool:
    """Whether a table has its defaults, all of them."""
    if not values:
        return True
    rules = {
        key: rule
        for choice in section.known_tables().get(table, ())
        for key, rule in section.table_rules(choice, table).items()
    }
    return all(key in rules and value == rules[key].default for key, value in values.items())


def parsed_options(key: str, value: object) -> dict[str, Any]:
    """The options of what is not built in, out of one text of inline TOML."""
    if not isinstance(value, str):
        raise ConfigError(
            f'{key} must be one text of inline TOML, such as "channels = 4, scale = 0.5"; got {came(value)}.'
        )
    try:
        return dict(tomllib.loads(f"options = {{{value}}}")["options"])
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f'{key} must be one text of inline TOML, such as "channels = 4, scale = 0.5"; got {came(value)}: {error}.'
        ) from error


def _unknown(key: str) -> str:
    """What is said of a key that no setting has: the one it is near to, else where to look."""
    section = key.partition(".")[0]
    if key in SECTIONS:
        return f"There is no setting {key!r}: it is a section, and its keys stand below [{key}], in single brackets."
    tables = [
        f"{name}.{table}.{option}"
        for name, its in SECTIONS.items()
        for table, choices in its.known_tables().items()
        for option in its.table_rules(choices[0], table)
    ]
    if near := nearest(key, [*rules(), *tables]):
        return f"There is no setting {key!r}. Did you mean {near!r}?"
    if section in SECTIONS:
        return f"There is no setting {key!r}. Those of [{section}] are {', '.join(SECTIONS[section].rules())}."
    return (
        f"There is no setting {key!r}. The sections are {', '.join(SECTIONS)}; `fed-lorac config` prints every setting "
        "with its meaning."
    )
