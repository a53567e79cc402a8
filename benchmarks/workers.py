"""Two workers over one: how much more a round gets done, by threads of one process and by Ray's processes.

Whole runs, in turn: one worker; `--workers` threads; as many processes of Ray; and as many runs of one worker at once,
which is what the machine itself allows, whose cores share memory and power. A run's steady seconds are the median of
its rounds but the first, and the last, which is evaluated.

- efficiency: steady seconds of one worker over `--workers` times those of several; 1: twice as fast with two.
- of_what_the_machine_allows: that over the same of separate runs at once.
- wall_ratio: seconds of the whole run with one worker over those with several.
- memory_mib: of all processes at their highest (proportional: what processes share counts once).

    FED_LORAC_DATA=... python benchmarks/workers.py --json [--rounds 5] [--repeats 3] [--workers 2] [-c KEY=VALUE ...]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import arguments, deliver, header, median_ratio, say
from peers.process import timed

SCENE = {
    "fleet.cameras": 12,
    "fleet.per_round": 12,
    "fleet.images": 500,
    "fleet.eval_images": 100,
    "run.threads": 1,
}
QUIET = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class Took:
    """One run, or several at once: the whole of it, and a round in the middle."""

    wall_s: float
    round_s: float
    peak_mib: float


def main() -> None:
    args = parsed()
    head, turns = header(), list[dict[str, Took]]()
    with tempfile.TemporaryDirectory() as folder:
        one_run(Path(folder), args, [])  # decodes images, and measures the base
        for _ in range(args.repeats):
            turns.append(turn(Path(folder), args))
            say({name: f"{took.round_s:.2f} s a round, {took.wall_s:.1f} s in all" for name, took in turns[-1].items()})
    deliver(compared(turns, args), head, as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind, in turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--digits", action="store_true", help="the quick start's digits: no real images")
    parser.add_argument("-c", dest="overrides", action="append", default=[], help="a setting of every run, key=value")
    args = parser.parse_args()
    if args.rounds < 3:
        parser.error("a round in the middle needs --rounds 3 or more")
    if not args.digits and not os.environ.get("FED_LORAC_DATA"):
        parser.error("real images are found through FED_LORAC_DATA, which is not set; --digits runs without them")
    return args


def turn(folder: Path, args: argparse.Namespace) -> dict[str, Took]:
    """Each kind of run once."""
    several = [f"run.workers={args.workers}"]
    return {
        "one": one_run(folder, args, []),
        "threads": one_run(folder, args, [*several, "run.pool=threads"]),
        "ray": one_run(folder, args, [*several, "run.pool=ray"]),
        "at_once": at_once(folder, args),
    }


def one_run(folder: Path, args: argparse.Namespace, settings: Sequence[str]) -> Took:
    out = Path(tempfile.mkdtemp(dir=folder))
    took = timed(command(out, args, settings), QUIET, folder / "log")
    return Took(took.wall_s, steady_s(out), took.peak_mib)


def at_once(folder: Path, args: argparse.Namespace) -> Took:
    """As many runs of one worker as there are workers, all at once; their memory is not looked at."""
    outs, began = [Path(tempfile.mkdtemp(dir=folder)) for _ in range(args.workers)], time.perf_counter()
    quiet: dict[str, Any] = {"env": os.environ | QUIET, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    runs = [subprocess.Popen(command(out, args, []), **quiet) for out in outs]
    if any([run.wait() for run in runs]):
        raise RuntimeError(f"runs beside each other ended with {[run.returncode for run in runs]}")
    return Took(time.perf_counter() - began, statistics.mean(map(steady_s, outs)), 0.0)


def command(out: Path, args: argparse.Namespace, settings: Sequence[str]) -> list[str]:
    scene = SCENE | {"run.rounds": args.rounds, "run.evaluate_every": args.rounds, "run.out": str(out / "run")}
    asked = [*(f"{key}={value}" for key, value in scene.items()), *args.overrides, *settings]
    config = "quickstart" if args.digits else "fog_snow_noise"
    return [sys.executable, "-m", "fed_lorac", "run", config, *(word for one in asked for word in ("-c", one))]


def steady_s(out: Path) -> float:
    rows = [json.loads(line) for line in (out / "run" / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    return float(statistics.median(row["seconds"] for row in rows[1:-1]))


def compared(turns: Sequence[Mapping[str, Took]], args: argparse.Namespace) -> dict[str, Any]:
    """Each kind beside one worker, medians over turns."""
    of = {name: [turn[name] for turn in turns] for name in turns[0]}
    one = of["one"]
    speed = {name: median_ratio([t.round_s for t in one], [t.round_s for t in its]) for name, its in of.items()}
    found: dict[str, Any] = {
        pool: {
            "efficiency": round(speed[pool] / args.workers, 3),
            "of_what_the_machine_allows": round(speed[pool] / args.workers / speed["at_once"], 3),
            "wall_ratio": round(median_ratio([t.wall_s for t in one], [t.wall_s for t in of[pool]]), 3),
            "memory_mib": round(statistics.median(t.peak_mib for t in of[pool])),
        }
        for pool in ("threads", "ray")
    }
    alone = {
        "round_s": round(statistics.median(t.round_s for t in one), 3),
        "wall_s": round(statistics.median(t.wall_s for t in one), 2),
        "memory_mib": round(statistics.median(t.peak_mib for t in one)),
    }
    scenario = {"workers": args.workers, "rounds": args.rounds, "repeats": args.repeats, "digits": args.digits}
    return {**found, "one": alone, "efficiency_of_runs_at_once": round(speed["at_once"], 3), "scenario": scenario}


if __name__ == "__main__":
    main()
