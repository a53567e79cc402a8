"""What one setting may be: its kind, range and choices. Knows scalars and messages; not which settings there are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TypeVar, cast

from fed_lorac.errors import ConfigError

__all__ = ["Rule", "Scalar", "items", "nearest", "setting"]

Scalar = bool | int | float | str
"""What Flower's run-config can carry."""

T = TypeVar("T", bool, int, float, str)

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes"}
# Flower carries whole numbers as protobuf's sint64.
LARGEST = 2**63 - 1


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

    def checked(self, key: str, value: object) -> Scalar:
        """`value` as this setting's own kind; `ConfigError` where it is ill-typed, out of range or no choice."""
        scalar = self._typed(key, value)
        if isinstance(scalar, str):
            _check_utf_8(key, scalar)
            self._check_choices(key, scalar)
        elif not self._in_range(scalar):
            raise ConfigError(f"{key} must be {self._law()}; got {scalar!r}. Its default is {self.default!r}.")
        return scalar

    def _typed(self, key: str, value: object) -> Scalar:
        if self.listed and type(value) is int:  # `-c fleet.severities=3`: a list of one
            return str(value)
        if self.kind is float and type(value) is int and abs(value) <= LARGEST:
            return float(value)
        if type(value) is self.kind:
            return cast(Scalar, value)
        remedy = f"Write it as {self.default!r}."
        if self.listed and isinstance(value, list | tuple):
            remedy = f'Flower carries scalars only, so write the list as "{", ".join(map(str, value))}".'
        raise ConfigError(f"{key} must be {KINDS[self.kind]}; got {value!r} ({type(value).__name__}). {remedy}")

    def _in_range(self, value: float) -> bool:
        if self.kind is int and abs(value) > LARGEST:
            return False
        # NaN fails every comparison, and infinity `value < inf`: neither gets through.
        return self.least <= value <= self.most and self.above < value < self.below

    def _law(self) -> str:
        bounds = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        told = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
        return ", ".join(["a whole number below 2^63" if self.kind is int else "a finite number", *told])

    def _check_choices(self, key: str, value: str) -> None:
        words = items(value) if self.listed else (value,)
        if not words and self.default:
            raise ConfigError(f"{key} must name at least one; got {value!r}. Its default is {self.default!r}.")
        for word in words:
            if self.choices and word not in self.choices:
                raise ConfigError(
                    f"{key} must be {'from' if self.listed else 'one of'} {', '.join(self.choices)}; got {word!r}. "
                    f"Did you mean {nearest(word, self.choices)!r}?"
                )


def _check_utf_8(key: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{key} must be UTF-8, as the file is that holds it; got {value!r}. Rename the path, or make a link to it."
        ) from None


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
) -> T:
    """A dataclass field that carries its `Rule`; its kind is its default's."""
    rule = Rule(type(default), default, meaning, least, above, most, below, choices, listed)
    made: T = field(default=default, metadata={"rule": rule})
    return made


def items(text: str) -> tuple[str, ...]:
    """The words of a comma-separated list: `"fog, snow"` gives `("fog", "snow")`."""
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name most like `word`, where a right key (`fleet.rank`) weighs more than a right section."""
    section, _, key = word.rpartition(".")

    def likeness(name: str) -> float:
        its_section, _, its_key = name.rpartition(".")
        alike = SequenceMatcher(None, word, name).ratio() + SequenceMatcher(None, key, its_key).ratio()
        return alike + 0.25 * (section == its_section) + 0.5 * (key == its_key)

    return max(known, key=likeness)
