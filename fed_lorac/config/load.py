"""Where a config comes from: a shipped name, a file, `-c key=value`. Knows files and TOML; not what a key means."""

import codecs
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TypeVar

from fed_lorac.config.section import OPTIONS
from fed_lorac.config.whole import SECTIONS, Config, parsed_options, rules
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.files import home_expanded, read_bytes
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.settings import Rule
from fed_lorac.runtime.spelling import toml

V = TypeVar("V")

__all__ = [
    "DEFAULT",
    "Overrides",
    "Source",
    "flatten",
    "load_config",
    "load_to_pretrain",
    "shipped_configs",
    "shipped_folder",
]

DEFAULT = "quickstart"
# A wheel holds sim_configs/ inside fed_lorac/; in the source tree and in Flower's app bundle it stands beside it.
_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = next((at for at in (_PACKAGE, _PACKAGE.parent) if (at / "sim_configs").is_dir()), _PACKAGE) / "sim_configs"


def shipped_folder() -> Path:
    """Where the configs are that travel with the package."""
    return _SHIPPED


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
    where only one of those in force has it: `workers=2` is `run.workers=2`, and under krum `malicious=2` is
    `strategy.krum.malicious=2`. Of several, it is the one that has the value among its choices: `downlink=svd` is the
    strategy's, `downlink=multicast` the link's. Where an override makes another choice than the file, the options of
    the file's choice go. Raises `ConfigError`.
    """
    return _checked(_asked(source, overrides))


def load_to_pretrain(source: Source = None, overrides: Overrides = ()) -> Config:
    """The config of a base that is to be trained: as `load_config`'s, but shipped weights are none to start from."""
    flat = _asked(source, overrides)
    shipped = flat.get("model.weights", "shipped") == "shipped"
    return _checked(flat | {"model.weights": "none"} if shipped else flat)


def _asked(source: Source, overrides: Overrides) -> dict[str, object]:
    """The settings that are given, each by its whole key."""
    if isinstance(source, Config):
        file: dict[str, object] = dict(source.to_flat())
    else:
        file = _named(source if isinstance(source, Mapping) else _read(_find(DEFAULT if source is None else source)))
    return _overridden(_spread(file), overrides)


def _spread(flat: Mapping[str, object]) -> dict[str, object]:
    """The same settings, the options of somebody else's parts each by its own key, where one text has all."""
    texts = {key: flat[key] for name in SECTIONS if (key := f"{name}.{OPTIONS}") in flat}
    apart = {f"{key}.{own}": its for key, text in texts.items() for own, its in parsed_options(key, text).items()}
    return {key: value for key, value in flat.items() if key not in texts} | apart


def _checked(flat: Mapping[str, object]) -> Config:
    _check_in_force(flat)
    return Config.from_flat(flat)


def _overridden(file: Mapping[str, object], overrides: Overrides) -> dict[str, object]:
    if isinstance(overrides, Mapping):
        asked = _named(overrides, file)
    else:
        texts = _whole(dict(map(_split, _texts(overrides))), file)
        known = rules() | _options({**file, **texts})
        asked = {key: _parse_value(key, text, known.get(key)) for key, text in texts.items()}
    both = {**file, **asked}
    gone = _tables_in_force(file).keys() - _tables_in_force(both).keys()
    gone |= (_in_view(file) - _in_view(both)) | _orphans(file, both)
    return {key: value for key, value in file.items() if not {key, _table_of(key)} & gone} | asked


def _orphans(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """The keys of somebody else's parts that have no meaning any more: none of the parts that had them is chosen still,
    though another may have a setting of that name."""
    found = set()
    for name, section in SECTIONS.items():
        then, now = section.owners(_values(name, before)), section.owners(_values(name, after))
        found |= {f"{name}.{OPTIONS}.{key}" for key, parts in then.items() if not parts & now.get(key, set())}
    return found


def _in_view(flat: Mapping[str, object]) -> set[str]:
    """The keys out of tables that have a meaning under the values in `flat`."""
    return {f"{name}.{key}" for name, section in SECTIONS.items() for key in section.in_view(_values(name, flat))}


def _named(came: Mapping[str, object], beneath: Mapping[str, object] | None = None) -> dict[str, object]:
    """The settings by their keys with section."""
    flat = {key: _plain(value) for key, value in flatten(came).items()}
    named = _whole(flat, beneath)
    if len(named) < len(flat):
        twice = next(key for key in flat if key not in named)
        raise ConfigError(f"A key is given once; {twice!r} comes with its section too. Remove one of the two.")
    return named


def _tables_in_force(flat: Mapping[str, object]) -> dict[str, dict[str, Rule]]:
    """The tables `section.name` that the choices in `flat` bring, each with its rules."""
    return {
        f"{name}.{table}": its
        for name, section in SECTIONS.items()
        for table, its in section.tables_of(_values(name, flat)).items()
    }


def _options(flat: Mapping[str, object]) -> dict[str, Rule]:
    """The settings of those tables, by their whole keys."""
    return {f"{table}.{key}": rule for table, its in _tables_in_force(flat).items() for key, rule in its.items()}


def _values(section: str, flat: Mapping[str, object]) -> dict[str, object]:
    """A section's values out of tables, those that are given."""
    keys = (key for key in SECTIONS[section].rules() if f"{section}.{key}" in flat)
    return {key: flat[f"{section}.{key}"] for key in keys}


def _table_of(key: str) -> str:
    return key if key.count(".") == 1 and key.endswith(f".{OPTIONS}") else key.rpartition(".")[0]


def _check_in_force(flat: Mapping[str, object]) -> None:
    """ConfigError where something is given that has no meaning under the choices, even where it has its default."""
    in_force, in_view = _tables_in_force(flat), _in_view(flat)
    for key in flat:
        section, _, table = _table_of(key).partition(".")
        if section in SECTIONS and table and f"{section}.{table}" not in in_force:
            raise ConfigError(SECTIONS[section].not_in_force(table, _values(section, flat)))
        own = key.partition(".")[2]
        if key in rules() and key not in in_view and own not in SECTIONS[section].quiet:
            raise ConfigError(SECTIONS[section].without_meaning(own, _values(section, flat)))


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
    section, _, name = path.partition(".")
    if not table and section not in SECTIONS:
        raise ConfigError(f"There is no section [{path}].{did_you_mean(path, SECTIONS)}")
    if not table and name and name not in SECTIONS[section].known_tables():
        raise ConfigError(SECTIONS[section].not_in_force(name, {}))


def _find(source: str | Path) -> Path:
    shipped = shipped_configs()
    if not isinstance(source, str | Path):
        raise ConfigError(f"A config is a name, a path, a mapping or a Config; got {source!r}. Give one of these.")
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
        raise ConfigError(f"A config must be valid TOML; {path}: {error}. Fix that line.") from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no config file {path}. Check the path, or name a shipped one: {', '.join(shipped_configs())}."
        ) from error
    except OSError as error:
        raise ConfigError(f"A config file must be readable; {path}: {error.strerror}. Name another file.") from error


def _text(path: Path) -> str:
    """The file's text, without the mark that Windows' editors put before UTF-8."""
    data = read_bytes(path)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        raise ConfigError(f"A config must be UTF-8 text; {path} is UTF-16, or no text at all. Save it as UTF-8.")
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _texts(overrides: str | Sequence[str]) -> Sequence[str]:
    texts = [overrides] if isinstance(overrides, str) else overrides
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"Overrides are a mapping or key=value texts; got {overrides!r}. Write {{'run.rounds': 20}}, for one."
        )
    return texts


def _split(text: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals):
        raise ConfigError(f"An override is key=value, such as run.rounds=20; got {text!r}.")
    return key, value


def _whole(flat: Mapping[str, V], beneath: Mapping[str, object] | None = None) -> dict[str, V]:
    """Each key with its section, where it came without and one of those in force has it; else as it came."""
    in_view = {_full(key, value, rules()): value for key, value in flat.items()}
    known = rules() | _options({**(beneath or {}), **in_view})
    return {_full(key, value, known): value for key, value in flat.items()}


def _full(key: str, value: object, known: Mapping[str, Rule]) -> str:
    """The key with its section; of several that end so, the one that has the value among its choices."""
    if "." in key:
        return key
    found = [one for one in known if one.rpartition(".")[2] == key]
    word = str(value).strip("\"'")
    if len(found) > 1 and len(of_choice := [one for one in found if word in known[one].choices]) == 1:
        return of_choice[0]
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
                f"Text in quotes must be valid TOML; got {key}={value}: {error}. Leave out the quotes."
            ) from error
        return value
    found = parsed["value"]
    text_wanted = rule is not None and rule.kind is str
    listed = rule is not None and rule.listed
    if len(parsed) > 1 or (text_wanted and not isinstance(found, (str, list) if listed else str)):
        return value
    return found
