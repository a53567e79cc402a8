"""One section of the config: its values in view, and the tables of what is chosen there. Knows rules and classes that
declare settings; not which sections there are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self, TypeVar

from fed_lorac.errors import ConfigError
from fed_lorac.registry import Kind
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.settings import Rule, Scalar, items, rules_of
from fed_lorac.runtime.spelling import list_text, toml

__all__ = ["OPTIONS", "Section", "Table", "When", "unknown_option"]

T = TypeVar("T")

OPTIONS = "options"
"""The table of a choice that is not built in."""


class Frozen(Mapping[str, T]):
    """A mapping that does not change."""

    __slots__ = ("_items",)

    def __init__(self, values: Mapping[str, T]) -> None:
        self._items = tuple(values.items())

    def __getitem__(self, key: str) -> T:
        return dict(self._items)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(key for key, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(dict(self._items))


Table = Mapping[str, Scalar]
Chosen = Mapping[str, object]
"""Values of a section by their keys, checked or as they came; one that is absent has its default."""


@dataclass(frozen=True)
class When:
    """The values of a key under which something else has a meaning: a test of them, which takes any value, and in words
    what passes it."""

    key: str
    holds: Callable[[Any], bool]
    words: str


@dataclass(frozen=True)
class Section:
    """A section: checks each of its values as it is built, so no invalid one exists.

    Its keys are in view, each under its own law (`under`) where it has one: without, it has a meaning always. Those
    that are `quiet` stand in view where they are set: their default, which is empty, asks for nothing. `choices`
    names the keys whose value brings more settings: for each of its values a class, whose fields these are. Those that
    stand in view (`shared`) are passed on from there; the others are the table `[section.VALUE]`. A table that another
    value than a name brings stands in `cases`.

    `tables` has every table that is in force, complete; given in part, it is filled up with defaults.
    """

    section: ClassVar[str]
    choices: ClassVar[Mapping[str, Kind]] = {}
    shared: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    under: ClassVar[Mapping[str, When]] = {}
    quiet: ClassVar[tuple[str, ...]] = ()
    cases: ClassVar[Mapping[str, tuple[When, type]]] = {}

    tables: Mapping[str, Table] = field(default_factory=dict, kw_only=True, hash=False)

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Key (without the section and out of tables) -> its rule, in the order of declaration."""
        return {f.name: f.metadata["rule"] for f in fields(cls) if "rule" in f.metadata}

    @classmethod
    def in_view(cls, chosen: Chosen) -> dict[str, Rule]:
        """Those of `rules` that have a meaning under these values."""
        return {key: rule for key, rule in cls.rules().items() if cls._matters(key, chosen)}

    @classmethod
    def _matters(cls, key: str, chosen: Chosen) -> bool:
        if key in cls.quiet and not cls._value(key, chosen):
            return False
        if (when := cls.under.get(key)) and not when.holds(cls._value(when.key, chosen)):
            return False
        takers = [choice for choice, passed in cls.shared.items() if key in passed]
        return not takers or any(key in cls._declared(one, str(cls._value(one, chosen))) for one in takers)

    @classmethod
    def _value(cls, key: str, chosen: Chosen) -> object:
        return chosen.get(key, cls.rules()[key].default)

    @classmethod
    def known_tables(cls) -> dict[str, tuple[str, ...]]:
        """Name of each built-in table -> the keys whose choice it may be, in the order of declaration."""
        found: dict[str, tuple[str, ...]] = {}
        for key, kind in cls.choices.items():
            for value in kind.built_in:
                if cls.table_rules(key, value):
                    found[value] = (*found.get(value, ()), key)
        return found | {table: (when.key,) for table, (when, _) in cls.cases.items()}

    @classmethod
    def table_rules(cls, key: str, value: str) -> dict[str, Rule]:
        """The settings of the table that `key` brings by this name: those of its class that do not stand in view."""
        if value in cls.cases:
            return rules_of(cls.cases[value][1])
        in_view = cls.shared.get(key, ())
        return {name: rule for name, rule in cls._declared(key, value).items() if name not in in_view}

    @classmethod
    def _declared(cls, key: str, value: str) -> dict[str, Rule]:
        return cls.choices[key].rules(value)

    @classmethod
    def tables_of(cls, chosen: Chosen) -> dict[str, dict[str, Rule]]:
        """The tables that are in force under these values -> their rules; a choice that is none brings no table."""
        found: dict[str, dict[str, Rule]] = {}
        for key, kind in cls.choices.items():
            for value in cls._named(key, chosen):
                if rules := cls.table_rules(key, value):
                    found.setdefault(OPTIONS if kind.is_outside(value) else value, {}).update(rules)
        for table, (when, of) in cls.cases.items():
            if when.holds(cls._value(when.key, chosen)):
                found[table] = rules_of(of)
        return found

    @classmethod
    def _named(cls, key: str, chosen: Chosen) -> tuple[str, ...]:
        """The names that a choice makes: one, or of a list each; none, where the choice itself has no meaning."""
        if not cls._matters(key, chosen):
            return ()
        value = cls._value(key, chosen)
        named = items(list_text(value) or "") if cls.rules()[key].listed else (str(value),)
        return tuple(part for name in named for part in cls.choices[key].parts(name))

    def __post_init__(self) -> None:
        for key, rule in self.rules().items():
            value = rule.checked(f"{self.section}.{key}", getattr(self, key))
            object.__setattr__(self, key, value)  # a whole number given for a float becomes one
        in_view = self.in_view(vars(self))
        for key, rule in self.rules().items():
            if key not in in_view and getattr(self, key) != rule.default:
                raise ConfigError(self.without_meaning(key, vars(self)))
        object.__setattr__(self, "tables", Frozen(dict(self._checked_tables())))

    @classmethod
    def without_meaning(cls, key: str, chosen: Chosen) -> str:
        """What is said of a key that has no meaning under these values."""
        when = cls.under.get(key)
        other = when.key if when else next(choice for choice, passed in cls.shared.items() if key in passed)
        path, now = f"{cls.section}.{other}", toml(cls._value(other, chosen))
        remedy = f"set {path} to {when.words}" if when else f"choose another {path}"
        return f"{cls.section}.{key} has no meaning under {path} = {now}. Remove it, or {remedy}."

    def _checked_tables(self) -> Iterator[tuple[str, Table]]:
        in_force = self.tables_of(vars(self))
        for name in self.tables:
            if name not in in_force:
                raise ConfigError(self.not_in_force(name, vars(self)))
        for name, rules in in_force.items():
            given = self.tables.get(name, {})
            for key in given:
                if key not in rules:
                    raise ConfigError(unknown_option(f"{self.section}.{name}", key, rules))
            values = {
                key: rule.checked(f"{self.section}.{name}.{key}", given[key]) if key in given else rule.default
                for key, rule in rules.items()
            }
            yield name, Frozen(values)

    @classmethod
    def not_in_force(cls, name: str, chosen: Chosen) -> str:
        """The error for a table of a choice that is not made."""
        path = f"[{cls.section}.{name}]"
        if name in cls.cases:
            when = cls.cases[name][0]
            key, now = f"{cls.section}.{when.key}", toml(cls._value(when.key, chosen))
            return f"{path} is for {key} {when.words}; it is {now}. Remove the table, or set {key} {when.words}."
        if name == OPTIONS:
            kinds = list(cls.own_parts())
            return (
                f"{path} has the settings of a {' or '.join(kinds)} of your own, such as "
                f'{cls.section}.{kinds[0]} = "my_package.module:Name". Remove the table, or name your own.'
            )
        if keys := cls.known_tables().get(name):
            if without := [key for key in keys if not cls._matters(key, chosen)]:
                return f"{path} is for a {without[0]}. {cls.without_meaning(without[0], chosen)}"
            made = " and ".join(f"{cls.section}.{key} is {toml(cls._value(key, chosen))}" for key in keys)
            wanted = " or ".join(f"{cls.section}.{key} = {toml(name)}" for key in keys)
            return f"{path} is for {wanted}; {made}. Remove the table, or choose {name}."
        if any(name in kind.built_in for kind in cls.choices.values()):
            return f"There is no table {path}: {name} has no settings of its own. Remove the table."
        return f"There is no table {path}.{did_you_mean(name, cls.known_tables())}"

    def table(self, of: type[T]) -> T:
        """The settings that `of` declares, as the tables in force have them; its defaults where none of them is its.

        >>> FleetConfig(schedule="front").table(Front).period
        6
        """
        for key, kind in self.choices.items():
            name = str(getattr(self, key))
            if not self.rules()[key].listed and isinstance(its := kind.declares(name), type) and issubclass(its, of):
                return of(**{key: value for key, value in self.tables.get(name, {}).items() if key in rules_of(of)})
        for name, (_, its) in self.cases.items():
            if issubclass(its, of):
                return of(**self.tables.get(name, {}))
        return of()

    def choose(self, key: str, value: str, **options: Scalar) -> Self:
        """This section with another choice: with the options given, and without those of what was chosen before."""
        chosen = {**vars(self), key: value}
        tables = {name: table for name, table in self.tables.items() if name in self.tables_of(chosen)}
        if self.choices[key].is_outside(getattr(self, key)):
            tables.pop(OPTIONS, None)
        if options:
            tables[OPTIONS if self.choices[key].is_outside(value) else value] = options
        gone = self.rules().keys() - self.in_view(chosen).keys()
        changed: dict[str, Any] = {own: self.rules()[own].default for own in gone} | {key: value, "tables": tables}
        return replace(self, **changed)

    def settings(self, key: str, named: str = "") -> dict[str, Any]:
        """What the class that `key` chooses is built with: its own values of those in view, and its table's. Of a list,
        or of several parts, `named` says which of its choices is meant; without, the settings of all parts are given.
        """
        value = named or getattr(self, key)
        if len(parts := self.choices[key].parts(value)) > 1:
            return {own: value for part in parts for own, value in self.settings(key, part).items()}
        declared = self._declared(key, value)
        passed = {own: getattr(self, own) for own in self.shared.get(key, ()) if own in declared}
        name = OPTIONS if self.choices[key].is_outside(value) else value
        return passed | {own: value for own, value in self.tables.get(name, {}).items() if own in declared}

    def build(self, key: str, **changes: Any) -> Any:
        """What `key` chooses, built with its settings, and `changes` in their place; of several parts each with its own
        settings, and those of the changes that it has."""
        kind, name = self.choices[key], getattr(self, key)
        if len(parts := kind.parts(name)) == 1:
            return kind.make(name, **{**self.settings(key), **changes})
        own = [{k: v for k, v in changes.items() if k in self._declared(key, part)} for part in parts]
        return kind.join([kind.make(p, **{**self.settings(key, p), **its}) for p, its in zip(parts, own, strict=True)])

    @classmethod
    def own_parts(cls) -> dict[str, Kind]:
        """The keys whose choice may be somebody else's part."""
        return {key: kind for key, kind in cls.choices.items() if kind.group}

    @classmethod
    def owners(cls, chosen: Chosen) -> dict[str, set[str]]:
        """Each setting of the table of somebody else's parts -> the parts that have it, under these values."""
        found: dict[str, set[str]] = {}
        for key, kind in cls.own_parts().items():
            for name in (name for name in cls._named(key, chosen) if kind.is_outside(name)):
                for setting in cls.table_rules(key, name):
                    found.setdefault(setting, set()).add(f"{key} {name}")
        return found

    def outside(self) -> dict[str, str]:
        """Each package that a part of this section is from, where it is somebody else's -> which code that is."""
        return dict(
            kind.package(name)
            for key, kind in self.own_parts().items()
            for name in self._named(key, vars(self))
            if kind.is_outside(name)
        )


def unknown_option(table: str, key: str, rules: Mapping[str, Rule]) -> str:
    """What is said of a key that a table does not have."""
    near = did_you_mean(f"{table}.{key}", [f"{table}.{known}" for known in rules])
    those = f" Those of [{table}] are {', '.join(rules)}."
    return f"There is no setting '{table}.{key}'.{near or those}"
