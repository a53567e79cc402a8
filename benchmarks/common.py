"""What the benchmarks share: what ran where, one JSON object, timings that take turns. Knows machines and clocks; not
what is measured.

A figure is a ratio of two things that were timed in turn, in one run: whatever else the machine was doing, both had.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fed_lorac.experiment.machine import cpu_model
from fed_lorac.runtime.versions import version_of

__all__ = [
    "ROOT",
    "alternating_s",
    "arguments",
    "deliver",
    "header",
    "median_ratio",
    "peak_mib",
    "require",
    "reset_peak",
    "say",
]

ROOT = Path(__file__).resolve().parents[1]

_PACKAGES = ("fed-lorac", "torch", "torchvision", "flwr", "ray", "numpy", "loralib")


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows the benchmark's own docstring and knows `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout; words go to stderr")
    return parser


def say(*words: object) -> None:
    """A line for people, on stderr."""
    print(*words, file=sys.stderr, flush=True)


def header(device: str = "cpu", packages: Sequence[str] = _PACKAGES) -> dict[str, Any]:
    """Machine, device, versions, date and command, as every result carries them."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": shlex.join(["python", str(_shown(Path(sys.argv[0]))), *sys.argv[1:]]),
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "load_at_start": round(os.getloadavg()[0], 2),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        },
        "device": _device_name(device),
        "versions": {"python": platform.python_version()}
        | {name: version_of(name) or "not installed" for name in packages},
    }


def require(device: str) -> None:
    """End here, and say so, where a GPU is asked for and there is none."""
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415  (most benchmarks of the corruptions need no PyTorch)

        if not torch.cuda.is_available():
            say(f"--device {device} needs a CUDA device and PyTorch sees none here: this arm was not run.")
            raise SystemExit(2)


def deliver(result: Mapping[str, Any], head: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the result: the promised keys first, then the header; as JSON on stdout, else as words on stderr."""
    whole = {**result, **head}
    if as_json:
        sys.stdout.write(json.dumps(whole, indent=2) + "\n")
    else:
        for key, value in whole.items():
            say(f"{key}: {json.dumps(value)}")


def alternating_s(a: Callable[[], object], b: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of `a` and of `b`, called in turn `repeats` times after one call each that warms up."""
    a()
    b()
    pairs = [(seconds_of(a), seconds_of(b)) for _ in range(repeats)]
    return [first for first, _ in pairs], [second for _, second in pairs]


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios of neighbours, which shared whatever else the machine did."""
    return statistics.median(x / y for x, y in zip(over, under, strict=True))


def reset_peak() -> bool:
    """Let the kernel's high-water mark of resident memory start again from now; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float:
    """The most memory that this process has had resident since `reset_peak`, or since its start."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _shown(path: Path) -> Path:
    return path.resolve().relative_to(ROOT) if path.resolve().is_relative_to(ROOT) else path


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch  # noqa: PLC0415

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{device} (absent)"
