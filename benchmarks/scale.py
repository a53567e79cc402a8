"""What do a million enrolled cameras cost a run? `fed-lorac run` with 1,000 and with 1,000,000 of them, 100 a round.

The product, in a process of its own: scanned digits, ResNet-8, LoRA-C, cameras that share images, 100 of them measured.
Each fleet runs half of its rounds, is then resumed by another process, and runs the rest.

- round_ratio: CPU seconds of a round, its rows and its checkpoint, with the most cameras over those with the fewest;
  the median of the rounds that are followed by another. CPU seconds, as the clock on the wall counts what else the
  machine does.
- start_s, resume_s: seconds on that clock from the beginning of the process to its first training message.
- peak_mib: the most resident memory that a process of the fleet's had.

    python benchmarks/scale.py --json [--cameras 1000 1000000] [--rounds 20]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from common import arguments, deliver, header, say

RUN = """
import json, sys, time
from fed_lorac.simulation import run
inner, began, times = run.run_round, [], sys.argv[1]
def timed(*given, **named):
    began.append((time.time(), time.process_time()))
    with open(times, "w") as file:
        json.dump(began, file)
    return inner(*given, **named)
run.run_round = timed
from fed_lorac.cli import main
sys.argv = ["fed-lorac", "run", *sys.argv[2:]]
main()
"""
SETTINGS = {
    "model.weights": "none",
    "data.image_size": 16,
    "fleet.deal": "overlapping",
    "fleet.images": 20,
    "fleet.eval_images": 10,
    "local.epochs": 1,
    "local.schedule": "constant",
    "run.evaluate_every": 10,
    "run.fleet.evaluate_cameras": 100,
    "run.precision": "fp32",
}


def main() -> None:
    args = parsed()
    head, rows = header(), []
    for cameras in sorted(args.cameras):
        rows.append(fleet_of(cameras, args))
        say(rows[-1])
    few, many = rows[0], rows[-1]
    found = {
        "round_ratio": round(many["round_cpu_s"] / few["round_cpu_s"], 3),
        "start_s": many["start_s"],
        "resume_s": many["resume_s"],
        "peak_mib": many["peak_mib"],
        "fleets": rows,
        "scenario": {"per_round": args.per_round, "rounds": args.rounds, **SETTINGS},
    }
    deliver(found, head, as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args()


def fleet_of(cameras: int, args: argparse.Namespace) -> dict[str, Any]:
    """A run of so many cameras: the first half of its rounds, and the rest after it was resumed."""
    asked = SETTINGS | {"fleet.cameras": cameras, "fleet.per_round": args.per_round, "run.rounds": args.rounds // 2}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        first = process(Path(folder), "--out", str(out), *words(asked))
        again = process(Path(folder), "--resume", str(out), *words({"run.rounds": args.rounds}))
        rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
        listed = len((out / "cameras.jsonl").read_text().splitlines())
    last = rounds[-1]
    if len(rounds) != args.rounds or last["cameras_counted"] != min(args.per_round, cameras):
        raise RuntimeError(f"{args.rounds} rounds of {args.per_round} cameras were due; the last row is {last}")
    return {
        "cameras": cameras,
        "start_s": first["start_s"],
        "resume_s": again["start_s"],
        "round_cpu_s": round(statistics.median(first["rounds_cpu_s"] + again["rounds_cpu_s"]), 3),
        "peak_mib": max(first["peak_mib"], again["peak_mib"]),
        "rows_of_cameras": listed,
        "told_together_in_the_last_round": last["cameras_told_together"],
        "downlink_frame_bytes_of_the_last_round": last["downlink_frame_bytes"],
    }


def words(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]


def process(folder: Path, *given: str) -> dict[str, Any]:
    """One process of a run: when its first round began, CPU seconds of its rounds but the last, its peak memory."""
    times, began = folder / "times.json", time.time()
    child = subprocess.Popen([sys.executable, "-c", RUN, str(times), *given], stdout=subprocess.DEVNULL)
    _, ended, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(ended)
    if child.returncode:
        raise RuntimeError(f"fed-lorac run {' '.join(given)} ended with {child.returncode}")
    walls, cpus = zip(*json.loads(times.read_text()), strict=True)
    return {
        "start_s": round(walls[0] - began, 1),
        "rounds_cpu_s": [after - before for before, after in pairwise(cpus)],
        "peak_mib": round(used.ru_maxrss / 1024),
    }


if __name__ == "__main__":
    main()
