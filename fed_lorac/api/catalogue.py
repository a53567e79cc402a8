"""Every part that a config can name, with its source. Knows registries and docstrings; not what is in them.

What is said of a part stands beside it: an attribute `source`, or a docstring. What is added shows up by itself.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fed_lorac.errors import ConfigError, FedLoracError
from fed_lorac.radio.link import Link
from fed_lorac.registry import ADAPTERS, CODECS, CORRUPTIONS, DATASETS, LINKS, MODELS, OBJECTIVES, STRATEGIES, Kind
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.origin import docstring_of, origin_of
from fed_lorac.wire.codecs.codecs import Codec

__all__ = ["Entry", "methods", "networks"]

Entry = dict[str, Any]


def methods() -> dict[str, list[Entry]]:
    """Every name that a config may have, by kind: built-in ones first, then those of installed packages.

    The kinds are "adapters", "strategies", "objectives", "codecs", "links", "models", "datasets" and "corruptions". A
    family of torchvision's networks is one entry, under what their names begin with ("convnext*"), and so is timm
    ("timm/*"); `networks` has every name. An
    entry has its `name`, a `summary` of one line, its `source` (a paper or a standard; "" where it names none),
    `origin` ("built in", or the package and its version), `problem` (why an installed part cannot be used; ""
    otherwise), of an adapter or strategy the `lr`, a `local.lr` that a search found (None: nobody searched, or a
    strategy leaves it to the adapter), and of a strategy whether its mean is `exact`. As a table:
    `pandas.DataFrame(fl.methods()["adapters"])`.
    """
    return {
        "adapters": [entry | {"lr": _lr(ADAPTERS, entry)} for entry in _entries(ADAPTERS, _summary)],
        "strategies": [
            entry | {"lr": _lr(STRATEGIES, entry), "exact": _exact(entry)} for entry in _entries(STRATEGIES, _summary)
        ],
        "objectives": _entries(OBJECTIVES, _summary),
        "codecs": _entries(CODECS, _codec_summary),
        "links": _entries(LINKS, _link_summary),
        "models": _entries(MODELS, _summary),
        "datasets": _entries(DATASETS, _summary),
        "corruptions": _entries(CORRUPTIONS, _summary),
    }


def networks(part: str = "") -> list[str]:
    """Every network that `model.name` may say on this machine, those whose name has this part in it. `ConfigError`
    where none has."""
    names = (*MODELS.names, *MODELS.installed(), *MODELS.library_names)
    if not (found := [name for name in names if part in name]):
        raise ConfigError(
            f"A network's name must contain the text; none of {len(names)} contains {part!r}."
            f"{did_you_mean(part, names)} All: fed-lorac methods --networks ''."
        )
    return found


def _entries(kind: Kind, summary: Callable[[Any], str]) -> list[Entry]:
    try:
        installed = sorted(kind.installed())
    except ConfigError as error:  # two packages have registered one name
        own, others = _entries_of(kind, kind.names, summary), [_entry("?", kind.group, problem=str(error))]
    else:
        own, others = (_entries_of(kind, names, summary) for names in (kind.names, installed))
    of_libraries = [_entry(name, _release(package), *said) for name, *said, package in kind.families]
    return [*own, *of_libraries, *others]


def _entries_of(kind: Kind, names: Sequence[str], summary: Callable[[Any], str]) -> list[Entry]:
    found = []
    for name in names:
        try:
            part = kind.make(name) if kind.form == "value" else kind.load(name)
            found.append(_entry(name, kind.origin(name), summary(part), origin_of(part)))
        except FedLoracError as error:
            found.append(_entry(name, kind.origin(name), problem=str(error)))
    return found


def _release(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package}, not installed"


def _entry(name: str, origin: str, summary: str = "", source: str = "", problem: str = "") -> Entry:
    return {"name": name, "summary": summary, "source": source, "origin": origin, "problem": problem}


def _lr(kind: Kind, entry: Entry) -> float | None:
    return None if entry["problem"] else getattr(kind.load(entry["name"]), "found_lr", 0.0) or None


def _exact(entry: Entry) -> bool | None:
    return None if entry["problem"] else bool(STRATEGIES.load(entry["name"]).exact)


def _summary(part: Any) -> str:
    """The first sentence of its docstring."""
    paragraph = " ".join(docstring_of(part).partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".")


def _codec_summary(codec: Codec) -> str:
    return "lossless" if codec.lossless else "unbiased" if codec.unbiased else "biased"


def _link_summary(link: Link) -> str:
    limit = f", at most {link.duty_cycle:.0%} of the time" if link.duty_cycle < 1 else ""
    return f"{link.uplink_kbit_s:g} kbit/s up, {link.downlink_kbit_s:g} down{limit}"
