"""A kind of part that a config names: built in, an entry point of an installed package, or "module:Name". Knows text,
how to import and what keeps a contract; no part itself."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from socket import gethostname
from traceback import walk_tb
from typing import Any, Literal

from fed_lorac.errors import ConfigError, FedLoracError, one_line
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.settings import Rule, rules_of, settings_of
from fed_lorac.runtime.source import package_identity

__all__ = ["Kind", "load", "outside_module"]

_outside: set[str] = set()  # packages that parts loaded in this process are from, and that are somebody else's


@dataclass(frozen=True)
class Kind:
    """What may be named: its built-in names, each with its "module:Name", and the group of others' entry points.

    `contract` says in words what somebody else's must be: a class that extends `base`, a value of it, or a function.
    `given`: parameters that a function is always called with, and that are no settings therefore. `declared`: the
    classes that declare the settings of built-in ones; None: each declares its own.
    """

    built_in: Mapping[str, str | type]
    group: str = ""
    form: Literal["class", "value", "function"] = "class"
    contract: str = ""
    base: str = ""
    given: tuple[str, ...] = ()
    declared: Mapping[str, type] | None = field(default=None, kw_only=True)
    joined: str = field(default="", kw_only=True)
    """"module:Name" of what several parts make together, which are named with " + " between; "": each stands alone."""
    also: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Further names -> the built-in name that each stands for."""
    library: str = field(default="", kw_only=True)
    """"module:Name" of what finds further names in packages that are slow to import: `find(name)` gives a function, or
    None, or raises `ConfigError` with why this one is not taken; `names()` has all, `families()` and `words` say which
    they are."""

    @property
    def names(self) -> tuple[str, ...]:
        """The built-in names."""
        return tuple(self.built_in)

    def installed(self) -> Mapping[str, str]:
        """Name -> "module:Name" of what installed packages register. Raises `ConfigError` where a name is taken."""
        return {name: point.value for name, point in self._points().items()}

    def origin(self, name: str) -> str:
        """Where a name comes from: "built in", or the installed package and its version; "" for "module:Name"."""
        if name in self.built_in:
            return "built in"
        point = self._points().get(name)
        return f"{point.dist.name} {point.dist.version}" if point and point.dist else ""

    @property
    def families(self) -> Sequence[tuple[str, str, str, str]]:
        """The names that libraries have, in words: how they begin, which they are, their source, the package."""
        return tuple(load(self.library).families()) if self.library else ()

    @property
    def library_names(self) -> tuple[str, ...]:
        """The names that libraries have on this machine."""
        return tuple(load(self.library).names()) if self.library else ()

    def _points(self) -> Mapping[str, EntryPoint]:
        return _installed(self.group, self.names) if self.group else {}

    def parts(self, name: str) -> tuple[str, ...]:
        """The names that a name is made of: of "a + b" both, else itself."""
        return tuple(part.strip() for part in name.split("+")) if self.joined and "+" in name else (name,)

    def find(self, name: str) -> Any:
        """What a name stands for: a built-in class, an installed package's "module:Name", or itself, or a library's
        function, or what several together make; None: nothing."""
        name = self.also.get(name, name)
        if len(self.parts(name)) > 1:
            return self.joined
        if name in self.built_in:
            return self.built_in[name]
        if self.is_outside(name):
            return name if ":" in name else self.installed()[name]
        return load(self.library).find(name) if self.library else None

    def is_outside(self, name: str) -> bool:
        """Whether a name is somebody else's: an entry point or "module:Name"."""
        if len(self.parts(name)) > 1:
            return False  # each is asked by itself
        return bool(self.group) and not self._is_built_in(name) and (":" in name or name in self.installed())

    def is_of_library(self, name: str) -> bool:
        """Whether a name is neither built in nor somebody else's, so that a library alone may have it."""
        return bool(self.library) and not self._is_built_in(name) and not self.is_outside(name)

    def _is_built_in(self, name: str) -> bool:
        return name in self.built_in or name in self.also

    def takes(self, name: str) -> bool:
        """Whether a name that is not in `names` stands for something. `ConfigError`, with the nearest name, where a
        library is asked and has none, or where one of several parts has none."""
        if len(names := self.parts(name)) > 1:
            for part in names:
                if self.find(part) is None:
                    raise self._unknown(part)
            return True
        if self.is_of_library(name) and self.find(name) is None:
            raise self._unknown(name)
        return name in self.also or self.is_outside(name) or self.is_of_library(name)

    def load(self, name: str) -> Any:
        """What a name stands for, imported. Raises `ConfigError` where there is none, or it breaks its contract."""
        if (found := self.find(name)) is None:
            raise self._unknown(name)
        if not isinstance(found, str):
            return found
        loaded = load(found)
        if self.is_outside(name):
            if not self._keeps_contract(loaded):
                raise self.broken(name, f"{found} is {type(loaded).__name__} {loaded!r:.80}")
            _outside.add(found.partition(":")[0].partition(".")[0])
        return loaded

    @property
    def others(self) -> str:
        """What a name may be besides a built-in one, in words."""
        libraries = f", {load(self.library).words}" if self.library else ""
        return f'{libraries}, an entry point of the group {self.group}, or "module:Name"' if self.group else ""

    def _unknown(self, name: str) -> ConfigError:
        what = self.contract.partition(" of your own")[0] or "a name"
        return ConfigError(
            f"{what[0].upper()}{what[1:]} must be one of {', '.join(self.built_in)}{self.others}; got {name!r}."
            f"{did_you_mean(name, (*self.built_in, *self.installed(), *self.library_names))}"
        )

    def broken(self, name: str, what: str) -> ConfigError:
        """The error for somebody else's part that breaks its contract."""
        return ConfigError(
            f"{self.contract[:1].upper()}{self.contract[1:]}; {name!r} is not: {what}. Fix it: see docs/extending.md."
        )

    def make(self, name: str, /, **settings: Any) -> Any:
        """What a name stands for, called with its settings; or itself, where it is a value. Of several parts each gets
        those of the settings that it has."""
        if len(names := self.parts(name)) > 1:
            each = [{k: v for k, v in settings.items() if k in self.rules(part)} for part in names]
            return self.join([self.make(part, **own) for part, own in zip(names, each, strict=True)])
        found = self.load(name)
        if not self.is_outside(name):
            return found(**settings) if callable(found) else found
        try:
            made = found(**settings) if callable(found) else found
        except FedLoracError:
            raise
        except Exception as error:
            raise self.broken(name, f"it cannot be built with {settings}: {one_line(error)}") from error
        if self.form == "value" and not isinstance(made, load(self.base)):
            raise self.broken(name, f"it gives {type(made).__name__}")
        return made

    def join(self, made: Sequence[Any]) -> Any:
        """Several parts as one, or the one that there is."""
        return made[0] if len(made) == 1 else load(self.joined)(tuple(made))

    def rules(self, name: str) -> dict[str, Rule]:
        """The settings that a name brings, of several parts all: field or parameter -> rule; none of an unknown one."""
        if len(names := self.parts(name)) > 1:
            return {key: rule for part in names for key, rule in self.rules(part).items()}
        if self.is_outside(name):
            return {key: rule for key, rule in settings_of(self.load(name)).items() if key not in self.given}
        if self.declared is not None:
            return rules_of(self.declared[name]) if name in self.declared else {}
        return rules_of(self.load(name)) if self._is_built_in(name) else {}

    def declares(self, name: str) -> Any:
        """What declares the settings of a name; None: nothing does."""
        if self.declared is not None and name in self.built_in:
            return self.declared.get(name)
        return self.load(name) if self.find(name) else None

    def package(self, name: str) -> tuple[str, str]:
        """The package that somebody else's part is from, and which code that is: its version and a hash of its source;
        "?" where there is none, as of what a notebook defines."""
        self.load(name)
        module = str(self.find(name)).partition(":")[0]
        return module.partition(".")[0], package_identity(module) or "?"

    def _keeps_contract(self, found: Any) -> bool:
        if self.form == "function":
            return callable(found)
        base = load(self.base)
        if self.form == "class":
            return isinstance(found, type) and issubclass(found, base)
        return isinstance(found, base) or callable(found)


def outside_module(error: BaseException) -> str:
    """The module of somebody else's part in which an error came up, or was called from, the innermost; "": in none."""
    modules = [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]
    return next((name for name in reversed(modules) if name.partition(".")[0] in _outside), "")


@cache
def load(reference: str) -> Any:
    """What "module:Name" names; its module is looked for in the current folder too.

    Raises:
        ConfigError: it cannot be imported here.
    """
    module, _, name = reference.partition(":")
    try:
        found: Any = _imported(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            f'"module:Name" must name what can be imported; {reference!r} cannot be on {gethostname()}: '
            f"{one_line(error)}. Check the spelling, and that its package is installed on every machine of the run."
        ) from error
    return found


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        if (here := str(Path.cwd())) in sys.path:
            raise
        sys.path.append(here)  # the command's own path has its folder, and not the one that it is called in
        invalidate_caches()
        return import_module(module)


@cache
def _installed(group: str, built_in: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        whose = point.dist.name if point.dist else "a package"
        if point.name in built_in or found.get(point.name, point).value != point.value:
            raise ConfigError(
                f"A name must mean one thing; {whose} registers {point.name!r} in {group}, which "
                f"{'is built in' if point.name in built_in else f'{found[point.name].value} has already'}. Rename or "
                "uninstall it."
            )
        found[point.name] = point
    return found
