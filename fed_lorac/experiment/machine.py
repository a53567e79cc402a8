"""What this machine has for a run: CPUs, memory, and so how many workers. Knows the kernel's files and how many workers
are asked for; not Ray, nor what they do."""

import math
import os
import platform
from pathlib import Path

from fed_lorac.config.sections import RunConfig
from fed_lorac.errors import RunError

__all__ = ["THREAD_BYTES", "WORKER_BYTES", "check_workers", "cpu_model", "free_memory_bytes", "usable_cpus"]

WORKER_BYTES = 1 << 30
"""Memory that must be free for each worker: Python, PyTorch, a base network and a block's activations."""

THREAD_BYTES = 1 << 28
"""The same of a worker that is a thread, which shares Python and PyTorch with the others: a block's networks and
activations."""

_GROUP = Path("/sys/fs/cgroup")


def check_workers(run: RunConfig) -> None:
    """Raise `RunError` where the workers on this machine would be more than its CPUs and memory carry; one may always
    work, on more threads than there are CPUs too, because results repeat at equal threads only."""
    cpus, free = usable_cpus(), free_memory_bytes()
    each = WORKER_BYTES if run.pool == "ray" else THREAD_BYTES
    places = max(1, min(cpus // run.threads, free // each))
    if run.workers <= places:
        return
    need = run.workers * run.threads
    raise RunError(
        f"A worker needs run.threads = {run.threads} CPUs and {each / 2**30:g} GiB of free memory; run.workers = "
        f"{run.workers} need {need} CPUs and {run.workers * each / 2**30:g} GiB, and this machine has {cpus} CPUs and "
        f"{free / 2**30:.1f} GiB for them. Set run.workers = {places}, which gives the same results."
        + (
            f" For more workers than CPUs, start a Ray cluster that declares them (ray start --head --num-cpus={need}) "
            'and set run.ray.address = "auto".'
            if need > cpus and run.pool == "ray"
            else ""
        )
    )


def usable_cpus() -> int:
    """The CPUs that this process may use, at least one: those it may be put on, or less where a container may use less
    of their time."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_GROUP / "cpu.max").read_text(encoding="utf-8").split()
        return min(cpus, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return cpus


def cpu_model() -> str:
    """The CPU's model, which decides the last bits of a float."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def free_memory_bytes() -> int:
    """What a new process may take: the kernel's estimate, or less where a container has less left."""
    try:
        table = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        free = int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit, used = (int((_GROUP / f"memory.{name}").read_text(encoding="utf-8")) for name in ("max", "current"))
        # Cached files count as used, but are given up on demand.
        stat = dict(line.split() for line in (_GROUP / "memory.stat").read_text(encoding="utf-8").splitlines())
        return min(free, limit - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return free
