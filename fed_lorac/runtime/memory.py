"""Memory that this process has freed, given back to the system. Knows the C library; not what the memory was for."""

import ctypes
from collections.abc import Callable
from functools import cache

__all__ = ["give_back"]


def give_back() -> None:
    """Return freed memory to the system. glibc keeps it for later, up to the largest that its heap ever was; another C
    library is left to its own ways."""
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
