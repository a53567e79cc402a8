"""Runs in processes of their own that are killed, forked from a server that has imported everything already."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

from fed_lorac.config import load_config

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["fed_lorac.simulation.engines", "fed_lorac.fleet.fleet", "flwr_datasets.partitioner", "sklearn"]
)


def go(settings: list[str], out: Path, resume: bool, die_at_write: int = 0) -> None:
    """Run or go on; with `die_at_write`, SIGKILL oneself in the middle of the n-th write to the disk."""
    from fed_lorac.reporting.watch import Watch
    from fed_lorac.simulation.engines import run

    if die_at_write:
        _die_at(die_at_write)
    run(load_config(None, settings), out, Watch(), resume=resume)


def _die_at(write: int) -> None:
    forced, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == write:
            os.kill(os.getpid(), signal.SIGKILL)
        forced(handle)

    os.fsync = fsync  # type: ignore[assignment]


def killed_after(seconds: float, settings: list[str], out: Path, *, resume: bool) -> bool:
    """Start it and SIGKILL it after so long; False where it was done before."""
    child = SERVER.Process(target=go, args=(settings, out, resume))
    child.start()
    child.join(seconds)
    child.kill()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def killed_at_write(write: int, settings: list[str], out: Path) -> bool:
    """Start it and let it die in its n-th write; False where it makes fewer."""
    child = SERVER.Process(target=go, args=(settings, out, False, write))
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), child.exitcode
    return child.exitcode != 0


def seconds_of(settings: list[str], out: Path) -> float:
    """Let it run to its end, and say how long that took."""
    began = time.monotonic()
    child = SERVER.Process(target=go, args=(settings, out, False))
    child.start()
    child.join()
    assert child.exitcode == 0
    return time.monotonic() - began
