"""An adapter by its name, of whose settings those are set that it has."""

from typing import Any

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.registry import ADAPTERS
from fed_lorac.runtime.settings import rules_of

__all__ = ["named_adapter"]


def named_adapter(method: str = "lora-c", **settings: Any) -> Adapter:
    """The built-in adapter of this name, with what of the settings it knows."""
    kind = ADAPTERS.load(method)
    adapter: Adapter = kind(**{key: value for key, value in settings.items() if key in rules_of(kind)})
    return adapter
