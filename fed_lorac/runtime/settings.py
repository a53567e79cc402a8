"""What one setting may be: its kind, range and choices. Knows scalars and messages; not which settings there are."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from inspect import signature
from typing import Any, TypeVar, cast

from fed_lorac.errors import ConfigError
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.spelling import LARGEST, Scalar, came, items, list_text, meant, toml

__all__ = ["Rule", "Scalar", "check_settings", "items", "rules_of", "setting", "settings_of", "with_default"]

T = TypeVar("T", bool, int, float, str)

_OWN = ' One of your own is named "module:Name", or by an entry point of its installed package.'

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}


@dataclass(frozen=True)
class Rule:
    """The law of one setting. `least` and `most` are allowed themselves, `above` and `below` are not."""

    kind: type
    default: Scalar
    meaning: str
    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    choices: tuple[str, ...] = ()
    listed: bool = False
    outside: Callable[[str], bool] | None = None
    """Whether a name that is not built in may be taken all the same: somebody else's `module:Name`, say."""

    @property
    def told(self) -> str:
        """The meaning, and what there is to choose from."""
        return f"{self.meaning} ({' | '.join(self.choices)})" if self.choices else self.meaning

    def checked(self, key: str, value: object) -> Scalar:
        """`value` as this setting's own kind; `ConfigError` where it is ill-typed, out of range or no choice.

        Of another kind, only what can mean one thing alone is taken: a whole number where a number is wanted, "True"
        for true, a list where the setting is one.
        """
        scalar = self._typed(key, value)
        if self.listed and self.kind is not str:
            return self._numbers(key, str(scalar))
        if isinstance(scalar, str):
            self._check_text(key, scalar)
        elif not self._in_range(scalar):
            raise ConfigError(f"{key} must be {self._law(scalar)}; got {toml(scalar)}. {self._default()}")
        return scalar

    def _typed(self, key: str, value: object) -> Scalar:
        if self.listed and (text := list_text(value)) is not None:
            return text
        if self.kind is float and type(value) is int and abs(value) <= LARGEST:
            return float(value)
        if type(value) is self.kind:
            return cast(Scalar, value)
        if self.kind is bool and isinstance(value, str) and value.strip().casefold() in ("true", "false"):
            return value.strip().casefold() == "true"
        raise ConfigError(f"{key} must be {self._kind()}; got {came(value)}. {self._remedy(value)}")

    def _numbers(self, key: str, text: str) -> Scalar:
        """Numbers with commas between, each in range: text such as "1, 2.5", or the number where there is one alone."""
        found = [meant(self.kind, word) for word in items(text)]
        bad = [
            word if number is None else number
            for word, number in zip(items(text), found, strict=True)
            if number is None or not self._fits(number)
        ]
        if bad or not found:
            raise ConfigError(
                f"{key} must be {self._law(0)}, or several with commas between; got {came(bad[0] if bad else text)}. "
                f"{self._default()}"
            )
        return cast(Scalar, found[0]) if len(found) == 1 else ", ".join(toml(number) for number in found)

    def _fits(self, number: Scalar) -> bool:
        return not isinstance(number, str) and self._in_range(number)

    def _kind(self) -> str:
        if self.listed and self.kind is not str:
            return f'{KINDS[self.kind]}, or several with commas between, such as "1, 2"'
        return 'words with commas between, such as "a, b"' if self.listed else KINDS[self.kind]

    def _remedy(self, value: object) -> str:
        """What to write instead: made of the value that came, where that can be."""
        scalar = meant(self.kind, value)
        if isinstance(scalar, str) and (not self.choices or scalar in self.choices):
            return f"Write {toml(scalar)}."
        if isinstance(scalar, int | float) and self._in_range(scalar):
            return f"Write {toml(scalar)}."
        if self.kind is bool:
            return "Write true or false."
        if self.kind is int and isinstance(number := meant(float, value), float):
            around = [toml(n) for n in (math.floor(number), math.ceil(number)) if self._in_range(n)]
            return f"Write a whole number such as {' or '.join(dict.fromkeys(around)) or toml(self.default)}."
        if self.choices:
            return f"Write one of {', '.join(map(toml, self.choices))}."
        return self._default()

    def _default(self) -> str:
        return f"Its default is {toml(self.default)}."

    def _in_range(self, value: float) -> bool:
        if self.kind is int and abs(value) > LARGEST:
            return False
        # NaN fails every comparison, and infinity `value < inf`: neither gets through.
        return self.least <= value <= self.most and self.above < value < self.below

    def _law(self, value: float) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        told = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
        if abs(value) > LARGEST and self.kind is int:
            told.append("below 2^63")
        return ", ".join(["a whole number" if self.kind is int else "a finite number", *told])

    def _check_text(self, key: str, value: str) -> None:
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # a path's bytes that are no UTF-8
            raise ConfigError(
                f"{key} must be text that UTF-8 can write; got {came(value)}. Rename the path, or link to it."
            )
        words = items(value) if self.listed else (value,)
        if not words and self.default:
            raise ConfigError(f"{key} must name at least one; got {came(value)}. {self._default()}")
        for word in words:
            if self.choices and word not in self.choices and not (self.outside and self.outside(word)):
                raise ConfigError(
                    f"{key} must be {'from' if self.listed else 'one of'} {', '.join(self.choices)}; got {word!r}."
                    f"{did_you_mean(word, self.choices)}{_OWN if self.outside else ''}"
                )


def setting(
    default: T,
    meaning: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    choices: tuple[str, ...] = (),
    listed: bool = False,
    outside: Callable[[str], bool] | None = None,
) -> T:
    """A dataclass field that carries its `Rule`; its kind is its default's."""
    rule = Rule(type(default), default, meaning, least, above, most, below, choices, listed, outside)
    made: T = field(default=default, metadata={"rule": rule})
    return made


def with_default(cls: type, name: str, default: T, meaning: str) -> T:
    """The setting `name` of `cls` in a class that extends it, with another default, and its meaning."""
    rule = replace(rules_of(cls)[name], default=default, meaning=meaning)
    made: T = field(default=default, metadata={"rule": rule})
    return made


def rules_of(cls: type) -> dict[str, Rule]:
    """The settings that a dataclass declares: field name -> rule, in the order of declaration."""
    declared: tuple[Any, ...] = fields(cls)
    return {one.name: one.metadata["rule"] for one in declared if "rule" in one.metadata}


def settings_of(thing: Any) -> dict[str, Rule]:
    """The settings of a class or function that need not know of rules: fields made by `setting`, and every other field
    or parameter whose default is a scalar, but for those of classes of ours; nothing, of what cannot be called."""
    if is_dataclass(thing) and isinstance(thing, type):
        ours = {name for kind in thing.__mro__ if kind.__module__.startswith("fed_lorac.") for name in kind.__dict__}
        given = {
            one.name: one.metadata.get("rule", None if one.name in ours else one.default)
            for one in fields(thing)
            if one.init
        }
    elif callable(thing):
        given = {name: one.default for name, one in signature(thing).parameters.items()}
    else:
        return {}
    where = f"see {thing.__module__}.{getattr(thing, '__qualname__', '')}".rstrip(".")
    return {
        name: one if isinstance(one, Rule) else Rule(type(one), one, where)
        for name, one in given.items()
        if isinstance(one, Rule | bool | int | float | str)
    }


def check_settings(values: object) -> None:
    """Check every field of a frozen dataclass that `setting` made; a whole number given for a float becomes one.

    For `__post_init__`: a class that carries its settings then cannot exist with an invalid one.

    Raises:
        ConfigError: a value of another kind, out of range or no choice; the message names class and field.
    """
    for one in fields(values):  # type: ignore[arg-type]
        if (rule := one.metadata.get("rule")) is not None:
            checked = rule.checked(f"{type(values).__name__}.{one.name}", getattr(values, one.name))
            object.__setattr__(values, one.name, checked)
