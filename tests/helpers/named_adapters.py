"""An adapter by its name, of whose settings those are set that it has; and the names of those for plain networks."""

from typing import Any

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.registry import ADAPTERS
from fed_lorac.runtime.settings import rules_of

__all__ = ["FOR_PLAIN", "named_adapter"]

FOR_PLAIN = sorted(name for name in ADAPTERS.names if not ADAPTERS.load(name).adapts_to_batch)
"""Built-in adapters that a network needs nothing for."""


def named_adapter(method: str = "lora-c", **settings: Any) -> Adapter:
    """The built-in adapter of this name, with what of the settings it knows."""
    kind = ADAPTERS.load(method)
    adapter: Adapter = kind(**{key: value for key, value in settings.items() if key in rules_of(kind)})
    return adapter
