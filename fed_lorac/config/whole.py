"""The whole config: nested and frozen, flat for Flower, and as TOML. Knows sections; not files."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from fed_lorac.config.sections import (
    AdapterConfig,
    BatchNormConfig,
    CodecConfig,
    DataConfig,
    FleetConfig,
    LocalConfig,
    ModelConfig,
    RayConfig,
    RunConfig,
    Section,
    StrategyConfig,
)
from fed_lorac.config.sense import contradictions
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.near import nearest
from fed_lorac.runtime.settings import Rule, Scalar
from fed_lorac.runtime.spelling import toml

__all__ = ["SECTIONS", "Config", "rules"]

SECTIONS: dict[str, type[Section]] = {
    "run": RunConfig,
    "ray": RayConfig,
    "model": ModelConfig,
    "data": DataConfig,
    "fleet": FleetConfig,
    "adapter": AdapterConfig,
    "local": LocalConfig,
    "batch_norm": BatchNormConfig,
    "strategy": StrategyConfig,
    "codec": CodecConfig,
}

_TOLD = 10  # unknown keys that an error names


def rules() -> dict[str, Rule]:
    """Every known key, `section.key`, and its rule."""
    return {f"{name}.{key}": rule for name, section in SECTIONS.items() for key, rule in section.rules().items()}


@dataclass(frozen=True)
class Config:
    """Everything a run is asked. An invalid or contradictory one cannot be built: `ConfigError`."""

    run: RunConfig = field(default_factory=RunConfig)
    ray: RayConfig = field(default_factory=RayConfig)
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
        """The config of Flower's run-config, `{"section.key": scalar}`; a key that is absent has its default."""
        known = rules()
        if unknown := [key for key in flat if key not in known]:
            more = [f"So it is with {len(unknown) - _TOLD} more keys."] if len(unknown) > _TOLD else []
            raise ConfigError("\n".join([_unknown(key, known) for key in unknown[:_TOLD]] + more))
        parts: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        for key, value in flat.items():
            section, _, name = key.partition(".")
            parts[section][name] = value
        made: dict[str, Any] = {name: section(**parts[name]) for name, section in SECTIONS.items()}
        return cls(**made)

    def to_flat(self) -> dict[str, Scalar]:
        """`{"section.key": scalar}` for every key, as Flower's run-config carries it."""
        return {f"{part.name}.{key}": value for part in fields(self) for key, value in self._items(part.name)}

    def to_toml(self) -> str:
        """The resolved config as TOML: every key, each with what it means; reading it gives this config again."""
        return "\n".join(self._table(name) for name in SECTIONS)

    def _items(self, section: str) -> list[tuple[str, Scalar]]:
        values = getattr(self, section)
        return [(key, getattr(values, key)) for key in SECTIONS[section].rules()]

    def _table(self, section: str) -> str:
        meanings = {key: rule.meaning for key, rule in SECTIONS[section].rules().items()}
        lines = [f"{key} = {toml(value)}  # {meanings[key]}" for key, value in self._items(section)]
        return "\n".join([f"[{section}]", *lines, ""])


def _unknown(key: str, known: Iterable[str]) -> str:
    """What is said of a key that no setting has: the one it is near to, else where to look."""
    section = key.partition(".")[0]
    if key in SECTIONS:
        return f"There is no setting {key!r}: it is a section, and its keys stand below [{key}], in single brackets."
    if near := nearest(key, known):
        return f"There is no setting {key!r}. Did you mean {near!r}?"
    if section in SECTIONS:
        return f"There is no setting {key!r}. Those of [{section}] are {', '.join(SECTIONS[section].rules())}."
    return (
        f"There is no setting {key!r}. The sections are {', '.join(SECTIONS)}; every setting stands with its meaning "
        "in sim_configs/quickstart.toml."
    )
