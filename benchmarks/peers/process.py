"""An arm as a process: how long it takes, and the most memory that it and all that it starts have at once. Knows the
kernel's counts; not what runs."""

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Took", "timed"]

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_EVERY_S, _GONE_S = 1.0, 30.0


@dataclass(frozen=True)
class Took:
    """Seconds from start to end, and MiB: the sum of all its processes' proportional set sizes (a page that several
    share counts once), at its highest of one look a second."""

    wall_s: float
    peak_mib: float


def timed(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Took:
    """Run it; what it says goes into `log`.

    Raises:
        RuntimeError: it fails, and what it said last; or it leaves processes behind.
    """
    # Who loses its parent becomes ours, and is counted and waited for.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    peak, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(_EVERY_S):
            peak[0] = max(peak[0], sum(_pss_mib(process) for process in _descendants()))

    watcher = threading.Thread(target=look, daemon=True)
    with log.open("w", encoding="utf-8") as file:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)
        watcher.start()
        code = process.wait()
        wall_s = time.perf_counter() - began
    done.set()
    watcher.join()
    if code:
        raise RuntimeError(f"{command} ended with {code}:\n{log.read_text(encoding='utf-8')[-4000:]}")
    _wait_for_the_rest(command)
    return Took(wall_s, peak[0])


def _descendants() -> list[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):  # it ended meanwhile
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found, seen = [os.getpid()], 0
    while seen < len(found):
        found += [child for child, parent in parents.items() if parent == found[seen]]
        seen += 1
    return found[1:]


def _pss_mib(process: int) -> float:
    with suppress(OSError):  # it ended meanwhile
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _wait_for_the_rest(command: Sequence[str]) -> None:
    deadline = time.monotonic() + _GONE_S
    while rest := _descendants():
        with suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        if time.monotonic() > deadline:
            raise RuntimeError(f"{command} has ended and left processes {rest}, which would count as the next arm's.")
        time.sleep(0.05)
