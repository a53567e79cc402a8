"""Where a part is from, as stands beside it: an attribute `source`, or a docstring. Knows docstrings; not which parts
there are."""

import inspect
import re
import sys
from functools import partial
from typing import Any

__all__ = ["docstring_of", "origin_of"]


def origin_of(part: Any) -> str:
    """Its attribute `source`; else what follows "Source:" in its docstring, or in its module's; "" where neither says
    anything."""
    if said := str(getattr(part, "source", None) or ""):
        return said
    module = sys.modules.get(getattr(_code(part), "__module__", ""))
    for text in (docstring_of(part), getattr(module, "__doc__", None) or ""):
        if found := re.search(r"^Source: (.+?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL):
            return " ".join(found[1].split()).removesuffix(".")
    return ""


def docstring_of(part: Any) -> str:
    """A part's own docstring, without its indentation."""
    return inspect.getdoc(_code(part)) or ""


def _code(part: Any) -> Any:
    return part.func if isinstance(part, partial) else part
