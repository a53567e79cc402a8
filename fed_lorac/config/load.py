"""Where a config comes from: a shipped name, a file, `-c key=value`. Knows files and TOML; not what a key means."""

import codecs
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

from fed_lorac.config.whole import SECTIONS, Config, rules
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.files import home_expanded
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.settings import Rule
from fed_lorac.runtime.spelling import toml

__all__ = ["DEFAULT", "Overrides", "Source", "flatten", "load_config", "shipped_configs"]

DEFAULT = "quickstart"
# A wheel holds sim_configs/ inside fed_lorac/; in the source tree and in Flower's app bundle it stands beside it.
_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = next((at for at in (_PACKAGE, _PACKAGE.parent) if (at / "sim_configs").is_dir()), _PACKAGE) / "sim_configs"


def shipped_configs() -> dict[str, Path]:
    """The names that travel with the package, and their files."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.toml"))}


Source = str | Path | Mapping[str, object] | Config | None
"""A shipped name, a file, settings as a mapping, a config; None is the quick start."""

Overrides = str | Sequence[str] | Mapping[str, object]
"""`key=value` once or several times (the last one wins), or a mapping of Python values."""


def load_config(source: Source = None, overrides: Overrides = ()) -> Config:
    """The config of `source` (default: quickstart) with `overrides` on top.

    A `Path`, or text that holds a slash or ends in .toml, is a file; other text is the name of a shipped one. A mapping
    has nested tables, as TOML has them, or flat keys: `{"run": {"rounds": 3}}` is `{"run.rounds": 3}`.
    Keys that it leaves out have the defaults, so an empty file is the quick start. A key without its section is taken
    where only one section has it: `workers=2` is `run.workers=2`. Raises `ConfigError`.
    """
    if isinstance(source, Config):
        flat: dict[str, object] = dict(source.to_flat())
    elif isinstance(source, Mapping):
        flat = _named(flatten(source))
    else:
        flat = _named(_read(_find(DEFAULT if source is None else source)))
    return Config.from_flat(flat | _overriding(overrides))


def _overriding(overrides: Overrides) -> dict[str, object]:
    if isinstance(overrides, Mapping):
        return _named(flatten(overrides))
    texts = [overrides] if isinstance(overrides, str) else overrides
    return dict(_parse_override(text) for text in texts)


def _named(came: Mapping[str, object]) -> dict[str, object]:
    """The settings by their keys with section."""
    flat = {_whole(key): _plain(value) for key, value in came.items()}
    if len(flat) < len(came):
        twice = next(key for key in came if _whole(key) != key and _whole(key) in came)
        raise ConfigError(f"A key is given once; {twice!r} comes with its section too. Remove one of the two.")
    return flat


def _plain(value: object) -> object:
    """A Python value as TOML would have it: NumPy's numbers, paths and tuples too."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return str(value) if isinstance(value, Path) else value


def flatten(tables: Mapping[str, object]) -> dict[str, object]:
    """Nested tables to dotted keys; one key given twice, nested and dotted, is a `ConfigError`."""
    flat: dict[str, object] = {}
    for key, value in _walk(tables, ""):
        if key in flat:
            raise ConfigError(f"A key is given once; {key!r} comes nested and dotted. Remove one of the two.")
        flat[key] = value
    return flat


def _walk(tables: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            _check_table(f"{prefix}{key}", value)
            yield from _walk(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_table(path: str, table: Mapping[str, object]) -> None:
    """A table that no key would tell of: it has the name of a setting, or none that is known and nothing in it."""
    if rule := rules().get(path):
        raise ConfigError(f"{path} is a setting, not a table; got [{path}]. Write {path} = {toml(rule.default)}.")
    if not table and path not in SECTIONS:
        raise ConfigError(f"There is no section [{path}].{did_you_mean(path, SECTIONS)}")


def _find(source: str | Path) -> Path:
    shipped = shipped_configs()
    if isinstance(source, Path) or "/" in source or "\\" in source or source.casefold().endswith(".toml"):
        return home_expanded(source)
    if source in shipped:
        return shipped[source]
    beside = [name for name in (f"{source}.toml", f"./{source}") if Path(name).is_file()]
    raise ConfigError(
        f"A config is a shipped name or a path that ends in .toml; got {source!r}. Shipped are: "
        f"{', '.join(shipped) or f'none (is {_SHIPPED} missing?)'}."
        + (f" Did you mean {beside[0]!r}?" if beside else did_you_mean(source, shipped))
    )


def _read(path: Path) -> dict[str, object]:
    try:
        return flatten(tomllib.loads(_text(path)))
    except UnicodeDecodeError as error:
        raise ConfigError(f"A config must be UTF-8 text; {path}: {error}. Save it as UTF-8.") from error
    except (ValueError, RecursionError) as error:  # a TOML error's message ends in "(at line 3, column 5)"
        raise ConfigError(f"A config must be valid TOML; {path}: {error}. Mend that line.") from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no config file {path}. Check the path, or name a shipped one: {', '.join(shipped_configs())}."
        ) from error
    except OSError as error:
        raise ConfigError(f"A config file must be readable; {path}: {error.strerror}. Name another file.") from error


def _text(path: Path) -> str:
    """The file's text, without the mark that Windows' editors put before UTF-8."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise ConfigError(f"A config must be UTF-8 text; {path} is UTF-16, or no text at all. Save it as UTF-8.")
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _parse_override(text: str) -> tuple[str, object]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise ConfigError(f"An override is key=value, such as run.rounds=20; got {text!r}.")
    key = _whole(key)
    return key, _parse_value(key, value, rules().get(key))


def _whole(key: str) -> str:
    """The key with its section, where it came without and one section alone has it; else as it came."""
    found = [known for known in rules() if known.partition(".")[2] == key]
    if len(found) > 1:
        raise ConfigError(f"A key names one setting; {key!r} may be any of {', '.join(found)}. Write its section too.")
    return found[0] if found else key


def _parse_value(key: str, value: str, rule: Rule | None) -> object:
    """`value` as the TOML value it is; a bare word, or what is not text where text is wanted, stays as typed."""
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError) as error:
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            raise ConfigError(
                f"Text in quotes must be valid TOML; got {key}={value}: {error}. Leave the quotes away."
            ) from error
        return value
    found = parsed["value"]
    text_wanted = rule is not None and rule.kind is str
    listed = rule is not None and rule.listed
    if len(parsed) > 1 or (text_wanted and not isinstance(found, (str, list) if listed else str)):
        return value
    return found
