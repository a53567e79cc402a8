"""What a worker has resident: a run with two Ray workers, looked at twice a second.

- worker: of the worker that had most, at its highest, in MiB: rss_mib (every page that it touches), pss_mib (pages that
  processes share count in parts), own_mib (nobody else's), and without_images_mib: rss_mib less what it has mapped of
  images. Beside them, which files it has mapped, images.npy first: CUDA's libraries are in memory where PyTorch was
  built with them, GPU or not.
- imports_mib: rss_mib of a process that has imported PyTorch, Ray and Flower, and done nothing.

    python benchmarks/worker_memory.py [--json] [--config fog_snow_noise] [-c KEY=VALUE ...]

The kept figures are of ResNet-20 on CIFAR-10, with the settings that their command has.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import arguments, deliver, header, say

_EVERY_S = 0.5
_IMPORTS = "import torch, ray, flwr.app; print(open('/proc/self/smaps_rollup').read().strip())"
_KEYS = {"rss_mib": ("Rss",), "pss_mib": ("Pss",), "own_mib": ("Private_Clean", "Private_Dirty")}


def workers_of(driver: int) -> Iterator[int]:
    """Ray's workers among the processes that a process has started."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):  # it ended meanwhile, or is no process
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    for process in parents:
        above = process
        while above not in (driver, 0):
            above = parents.get(above, 0)
        with suppress(OSError):
            if above == driver and (Path("/proc") / str(process) / "cmdline").read_bytes().startswith(b"ray::Worker"):
                yield process


def sizes(rollup: str) -> dict[str, float]:
    """The kernel's counts, in MiB."""
    said = dict(line.split(":") for line in rollup.splitlines()[1:])
    return {name: round(sum(int(said[key].split()[0]) for key in keys) / 1024) for name, keys in _KEYS.items()}


def files_of(process: int) -> dict[str, int]:
    """MiB resident of each file, the largest first; images all together."""
    found: Counter[str] = Counter()
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        words = line.split(None, 5)
        if "-" in words[0]:
            file = Path(words[5]) if len(words) == 6 and words[5].startswith("/") else Path("no file")
            name = "images" if file.suffix == ".npy" else file.name
        elif words[0] == "Rss:":
            found[name] += int(words[1])
    return {name: round(kib / 1024) for name, kib in found.most_common(12)}


def watched(command: list[str]) -> dict[int, dict[str, Any]]:
    """Each worker of a run, at its highest."""
    most: dict[int, dict[str, Any]] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        while run.poll() is None:
            for process in workers_of(run.pid):
                with suppress(OSError, KeyError):
                    now = sizes(Path(f"/proc/{process}/smaps_rollup").read_text())
                    if now["rss_mib"] > most.get(process, {}).get("rss_mib", 0):
                        most[process] = now | {"files_mib": files_of(process)}
            time.sleep(_EVERY_S)
    if run.returncode or not most:
        raise SystemExit(f"{command} ended with {run.returncode} and {len(most)} workers.")
    return most


def measured(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        settings = ["run.workers=2", f"run.out={folder}/run", *args.c]
        options = [word for setting in settings for word in ("-c", setting)]
        most = watched([sys.executable, "-m", "fed_lorac", "run", args.config, *options])
    worker = max(most.values(), key=lambda one: one["rss_mib"])
    worker["without_images_mib"] = worker["rss_mib"] - worker["files_mib"].get("images", 0)
    bare = subprocess.run([sys.executable, "-c", _IMPORTS], check=True, capture_output=True, text=True).stdout.strip()
    found = {"worker": worker, "imports_mib": sizes(bare)["rss_mib"], "workers": len(most)}
    say(found)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("-c", action="append", default=[], metavar="KEY=VALUE", help="a setting of the run")
    args = parser.parse_args()
    head = header()
    deliver(measured(args), head, as_json=args.json)


if __name__ == "__main__":
    main()
