"""A cache that each thread has for itself. Knows functions; not what they make."""

import threading
from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Generic, ParamSpec, TypeVar

__all__ = ["CachedByThread", "cached_by_thread"]

P = ParamSpec("P")
R = TypeVar("R")


class CachedByThread(Generic[P, R]):
    """A function with a `functools.lru_cache` of `maxsize` results in each thread that calls it."""

    def __init__(self, function: Callable[P, R], maxsize: int) -> None:
        self._function, self._maxsize, self._own = function, maxsize, threading.local()
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function gives; of the same arguments, what it gave this thread before."""
        if not hasattr(self._own, "cached"):
            self._own.cached = lru_cache(self._maxsize)(self._function)
        result: R = self._own.cached(*args, **kwargs)
        return result

    def cache_clear(self) -> None:
        """Forget what this thread was given."""
        self._own.__dict__.clear()


def cached_by_thread(maxsize: int) -> Callable[[Callable[P, R]], CachedByThread[P, R]]:
    """For a function whose results their users alter: no two threads are given the same one."""
    return lambda function: CachedByThread(function, maxsize)
