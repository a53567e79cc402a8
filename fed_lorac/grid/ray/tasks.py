"""Functions that run side by side, each in a Ray process of its own. Knows Ray; not what the functions do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import ray

from fed_lorac.config import RunConfig
from fed_lorac.errors import last_line, one_line
from fed_lorac.grid.ray.cluster import joined

__all__ = ["run_tasks"]


def run_tasks(
    function: Callable[..., None],
    tasks: Mapping[str, Sequence[Any]],
    *,
    share: RunConfig,
    started: Callable[[str], None] = lambda name: None,
) -> Iterator[tuple[str, str | None]]:
    """Call `function(*tasks[name])` for each name, `share.workers` at a time, each with its threads and device.

    Yields each name as its call ends, with what it raised in a line, or None.
    A process that dies is the failure of its own call: the others go on. Under RAY_ADDRESS the processes are that
    cluster's, which must have this package and see the same files.

    Raises:
        RunError: there is no cluster, or no room on it.
    """
    with joined(share) as room:
        remote = ray.remote(function).options(**room, max_retries=0, scheduling_strategy="SPREAD")
        waiting, running = iter(tasks.items()), dict[Any, str]()
        while True:
            for name, arguments in islice(waiting, share.workers - len(running)):
                running[remote.remote(*arguments)] = name
                started(name)
            if not running:
                return
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                yield running.pop(reference), _failure(reference)


def _failure(reference: Any) -> str | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return one_line(error.cause) if isinstance(error.cause, BaseException) else last_line(str(error))
    except ray.exceptions.RayError as error:
        return f"its process died: {last_line(str(error))}"
    return None
