"""How a value is written in TOML, and what one that is written otherwise can only mean. Knows scalars; not settings."""

import json
import math
import re
from collections.abc import Mapping
from datetime import date, time

__all__ = ["LARGEST", "Scalar", "came", "items", "list_text", "meant", "toml"]

Scalar = bool | int | float | str
"""What Flower's run-config can carry."""

LARGEST = 2**63 - 1
"""Flower carries whole numbers as protobuf's sint64."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+", re.ASCII)  # 1,000 is a thousand to some, and one to others
_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_SHOWN = 80  # characters of a value that an error repeats


def toml(value: object) -> str:
    """A value as TOML writes it: `true`, `"lora-c"`, `[3, 4]`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):  # JSON's escapes are TOML's, but for DEL, which only TOML wants escaped
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    return value.isoformat() if isinstance(value, date | time) else repr(value)


def came(value: object) -> str:
    """A value as an error names it: what kind it is, where that does not show, and how it is written."""
    kinds: dict[type, str] = {str: "the text ", list: "the list ", tuple: "the list ", dict: "the table "}
    kind = "the date " if isinstance(value, date | time) else kinds.get(type(value), "")
    written = toml(value).encode("utf-8", "backslashreplace").decode()
    return kind + (written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…")


def meant(kind: type, value: object) -> Scalar | None:
    """The value of this kind that `value` can only mean, such as 2 for 2.0 or for "2"; None where there is none."""
    if kind is str:
        return toml(value) if isinstance(value, int | float | date | time) and not isinstance(value, bool) else None
    if kind is bool:
        return _TRUTH.get(str(value).strip().casefold()) if isinstance(value, int | str) else None
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) <= LARGEST:
        return None
    if kind is float:
        return float(number)
    return int(number) if number == math.floor(number) else None


def list_text(value: object) -> str | None:
    """A list as Flower carries it, `"fog, snow"`, from a TOML list, from its text, or from one item; None: it is none.

    A shell takes the quotes off `["fog", "snow"]`: what arrives, `[fog, snow]`, is a list all the same.
    """
    if isinstance(value, str):
        text = value.strip()
        bracketed = text.startswith("[") and text.endswith("]")
        return ", ".join(word.strip("\"'") for word in items(text[1:-1])) if bracketed else value
    each = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(item, int | float | str) and not isinstance(item, bool) for item in each):
        return None
    return ", ".join(item if isinstance(item, str) else toml(item) for item in each)


def items(text: str) -> tuple[str, ...]:
    """The words of a comma-separated list: `"fog, snow"` gives `("fog", "snow")`."""
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _number(text: str) -> float | None:
    plain = text.strip().replace("_", "")
    if _DECIMAL_COMMA.fullmatch(plain) and not _GROUPED.fullmatch(plain):
        plain = plain.replace(",", ".")
    if not _NUMBER.fullmatch(plain):
        return None
    return int(plain) if plain.lstrip("+-").isdigit() and len(plain) < 20 else float(plain)
