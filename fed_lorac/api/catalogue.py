"""Every method by name, with its source: adapters, strategies, objectives, codecs, links. Knows registries alone.

An entry's source stands beside it in its registry, and a strategy's exactness; what is added there shows up by itself.
"""

from typing import Any

from fed_lorac.registry import ADAPTERS, CODECS, LINKS, OBJECTIVES, STRATEGIES, Kind

__all__ = ["Entry", "methods"]

Entry = dict[str, Any]


def methods() -> dict[str, list[Entry]]:
    """Every name that a config may have: kind ("adapters", "strategies", "objectives", "codecs", "links") -> its entries, in order.

    An entry has a `name`, its `source` (a paper or a standard) and, of a strategy, whether its mean is `exact`. As a
    table: `pandas.DataFrame(fl.methods()["adapters"])`.
    """
    return {
        "adapters": [{"name": name, "source": kind.source} for name, kind in _loaded(ADAPTERS)],
        "strategies": [{"name": name, "source": row.source, "exact": row.exact} for name, row in _loaded(STRATEGIES)],
        "objectives": [{"name": name, "source": kind.source} for name, kind in _loaded(OBJECTIVES)],
        "codecs": [{"name": name, "source": row.source} for name, row in _loaded(CODECS)],
        "links": [{"name": name, "source": row.source} for name, row in _loaded(LINKS)],
    }


def _loaded(kind: Kind) -> list[tuple[str, Any]]:
    """Built-in ones first, then those of installed packages."""
    return [
        (name, kind.load(name) if kind.form == "class" else kind.make(name))
        for name in (*kind.names, *sorted(kind.installed()))
    ]
