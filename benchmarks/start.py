"""How long a run takes to its first training message, over importing PyTorch and Flower alone.

CPU seconds of whole processes, which other load on the machine hardly changes; the two take turns. The run is the quick
start, once before so that its images are decoded and what its base scores is kept: `again_ratio`. `first_ratio` is of a
run that measures its base, which is most of what it does before it trains.

    python benchmarks/start.py --json [--repeats 5]
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import arguments, deliver, header, say

IMPORTS = "import torch, flwr.app, flwr.serverapp, flwr.clientapp"
RUN = """
import os, sys
from fed_lorac.simulation import run
run.run_round = lambda *given, **named: os._exit(7)
from fed_lorac.cli import main
sys.argv = ["fed-lorac", "run", "quickstart", *sys.argv[1:]]
main()
"""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    head = header()
    with tempfile.TemporaryDirectory() as folder:
        _run(Path(folder), 0)
        turns = [_turn(Path(folder), number) for number in range(1, args.repeats + 1)]
    imports, again, first = (statistics.median(times) for times in zip(*turns, strict=True))
    say(f"imports {imports:.2f} s, a run of a known fleet {again:.2f} s, a run that measures its base {first:.2f} s")
    found: dict[str, Any] = {"again_ratio": round(again / imports, 2), "first_ratio": round(first / imports, 2)}
    deliver({**found, "imports_s": round(imports, 2), "scenario": {"repeats": args.repeats}}, head, as_json=args.json)


def _turn(folder: Path, number: int) -> tuple[float, float, float]:
    return _cpu_s(0, IMPORTS), _run(folder, number), _run(folder, number, "-c", "keep_base_scores=false")


def _run(folder: Path, number: int, *settings: str) -> float:
    return _cpu_s(7, RUN, "--out", str(folder / f"{number}{len(settings)}"), *settings)


def _cpu_s(status: int, *words: str) -> float:
    """CPU seconds of a Python process that ends with this status."""
    process = subprocess.Popen([sys.executable, "-c", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, ended, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != status:
        raise RuntimeError(f"{words} ended with {process.returncode}; {status} was due")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
