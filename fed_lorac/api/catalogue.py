"""Every method by name, with its source: adapters, strategies, codecs, links. Knows registries; not what is in them.

An entry's source stands beside it in its registry, and a strategy's exactness; what is added there shows up by itself.
"""

from typing import Any

from fed_lorac.fleet.links import LINKS
from fed_lorac.registry import ADAPTERS, STRATEGIES, Kind
from fed_lorac.wire.codecs.codecs import CODECS

__all__ = ["Entry", "methods"]

Entry = dict[str, Any]


def methods() -> dict[str, list[Entry]]:
    """Every name that a config may have: kind ("adapters", "strategies", "codecs", "links") -> its entries, in order.

    An entry has a `name`, its `source` (a paper or a standard) and, of a strategy, whether its mean is `exact`. As a
    table: `pandas.DataFrame(fl.methods()["adapters"])`.
    """
    return {
        "adapters": [{"name": name, "source": kind.source} for name, kind in _classes(ADAPTERS)],
        "strategies": [{"name": name, "source": row.source, "exact": row.exact} for name, row in _classes(STRATEGIES)],
        "codecs": [{"name": name, "source": row.source} for name, row in CODECS.items()],
        "links": [{"name": name, "source": row.source} for name, row in LINKS.items()],
    }


def _classes(kind: Kind) -> list[tuple[str, Any]]:
    return [(name, kind.load(name)) for name in kind.names]
