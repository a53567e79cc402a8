"""FleetGrid against plain Flower on Ray, the same scenario, end to end and steady.

Twelve cameras of 500 images, ResNet-20 with the shipped weights, LoRA-C r = 2 (R = r), batch 50, one epoch a round, two
workers of one thread. The base is measured before the first round and the model after the last, on the same images,
by the same passes. The weather is made before either arm starts and neither is charged for it. The plain arm is
`plain_flower` (what it is, and how ConvLoRA differs, is said there). Each arm is a process of its own; they take turns.

- wall_ratio: seconds of the whole process, imports, start-up and evaluation included, plain / FleetGrid.
- throughput_ratio: training images a second over rounds that only train, but for the first, FleetGrid / plain. Plain's
  clock runs from asking the first client to having averaged; FleetGrid's is its ledger's, and has the way down in it.

    pip install -e ".[benchmark]"
    FED_LORAC_DATA=... python benchmarks/fleet_vs_flower.py --json [--rounds 5] [--repeats 2] [--statistics batch|fixed]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, alternating_s, arguments, deliver, header, require, say
from plain_flower.network import base_network, train
from plain_flower.settings import Images, Settings

from fed_lorac.config import Config, load_config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.models.weights import shipped_path

BENCHMARKS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Run:
    """What one arm's process came to."""

    wall_s: float
    images_per_s: float
    accuracy: float
    trainable: int


def main() -> None:
    args = parsed()
    require(args.device)
    words = settings_of(args)
    experiment = build_experiment(load_config("fog_snow_noise", words))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        plain = replace(plain_settings(experiment, folder, args), channels_last=True)
        plain = replace(plain, channels_last=channels_last_is_faster(plain))
        runs: dict[str, list[Run]] = {"fleet": [], "plain": []}
        for repeat in range(args.repeats):
            runs["fleet"].append(fleet_run(words, folder / f"fleet-{repeat}", experiment.config))
            say(f"fleet {repeat}: {runs['fleet'][-1]}")
            runs["plain"].append(plain_run(plain, folder / f"plain-{repeat}", experiment.config))
            say(f"plain {repeat}: {runs['plain'][-1]}")
    deliver(compared(runs, experiment, plain, args), header(args.device), as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="runs of each arm, in turn")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--statistics", default="batch", choices=["batch", "fixed"], help="FleetGrid's statistics")
    parser.add_argument("--cameras", type=int, default=12)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--eval-images", type=int, default=250)
    parser.add_argument("--digits", action="store_true", help="scanned digits and ResNet-8: no real images, no ratio")
    parser.add_argument("-c", dest="overrides", action="append", default=[], help="a setting of FleetGrid's, key=value")
    args = parser.parse_args()
    if find_spec("loralib") is None:
        parser.error('the plain arm needs loralib: pip install -e ".[benchmark]"')
    if not args.digits and not os.environ.get("FED_LORAC_DATA"):
        parser.error("real images are found through FED_LORAC_DATA, which is not set; --digits runs without them")
    return args


def settings_of(args: argparse.Namespace) -> list[str]:
    """FleetGrid's settings, as `-c` takes them."""
    settings: dict[str, object] = {
        "run.rounds": args.rounds,
        "run.evaluate_every": args.rounds,
        "run.workers": args.workers,
        "run.threads": 1,
        "run.device": args.device,
        "fleet.cameras": args.cameras,
        "fleet.per_round": args.cameras,
        "fleet.images": args.images,
        "fleet.eval_images": args.eval_images,
        "adapter.lora-c.rank_mode": "r",
        "batch_norm.local.training_statistics": args.statistics,
    }
    if args.digits:
        settings |= {"data.name": "digits", "model.name": "resnet8"}
    return [*(f"{key}={value}" for key, value in settings.items()), *args.overrides]


def plain_settings(experiment: Experiment, folder: Path, args: argparse.Namespace) -> Settings:
    """The same scenario in the plain arm's words; writes every camera's images, and so fills our own cache too."""
    for camera in experiment.fleet.cameras:
        weather, clear = (
            camera_data(experiment.data, camera, experiment.config.run.seed),
            experiment.clear_images(camera.id),
        )
        assert clear is not None
        arrays = {"train_labels": weather.train_labels, "test_labels": weather.test_labels}
        arrays |= {"weather_train": weather.train, "weather_test": weather.test}
        arrays |= {"clear_train": clear.train, "clear_test": clear.test}
        np.savez(folder / f"camera-{camera.id}.npz", **{name: array.numpy() for name, array in arrays.items()})
    local = experiment.config.local
    return Settings(
        folder=str(folder),
        weights=str(shipped_path(experiment.config.model.name)),
        cameras=args.cameras,
        rounds=args.rounds,
        evaluate_every=args.rounds,
        epochs=local.epochs,
        batch_size=local.batch_size,
        lr=local.lr,
        alpha=experiment.adapter.scale,
        model=experiment.config.model.name,
        classes=len(experiment.data.classes),
        device=args.device,
        workers=args.workers,
    )


def channels_last_is_faster(settings: Settings, steps: int = 4) -> bool:
    """Which memory format is faster for the plain arm's own step, here: neither arm is charged for finding out."""

    def steps_in(layout: bool) -> Any:
        chosen = replace(settings, channels_last=layout, epochs=steps)
        model, generator = base_network(chosen), torch.Generator().manual_seed(0)
        count = settings.batch_size
        x = torch.randn(count, 3, 32, 32, generator=generator).to(settings.device)
        x = x.to(memory_format=torch.channels_last if layout else torch.contiguous_format)
        y = torch.zeros(count, dtype=torch.long, device=settings.device)
        return lambda: train(model, Images(x, y, x, y), chosen, 0.0, generator)

    torch.set_num_threads(settings.threads)
    last, first = alternating_s(steps_in(True), steps_in(False), 3)
    say(f"plain arm, a step: channels-last {min(last) / steps:.3f} s, channels-first {min(first) / steps:.3f} s")
    return statistics.median(last) < statistics.median(first)


def fleet_run(words: list[str], out: Path, config: Config) -> Run:
    """`fed-lorac run`, whole."""
    command = [sys.executable, "-m", "fed_lorac", "run", "fog_snow_noise", "--out", str(out)]
    wall_s = timed([*command, *(part for word in words for part in ("-c", word))], out, {})
    rows = [json.loads(line) for line in (out / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    failed = sum(row["cameras_left_out"] for row in rows)
    if failed:
        raise RuntimeError(f"{failed} turns were left out: {rows}")
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    seconds = [row["seconds"] for row in rows if row["accuracy"] is None] or [rows[-1]["seconds"]]
    trainable = rows[0]["uplink_payload_bytes"] // rows[0]["cameras_counted"] // 4  # float32
    return Run(wall_s, throughput(seconds, config), summary["adapted_accuracy"], trainable)


def plain_run(settings: Settings, out: Path, config: Config) -> Run:
    """`python -m plain_flower`, whole."""
    out.mkdir()
    settings.write(out / "settings.json")
    files = {"PLAIN_FLOWER_SETTINGS": "settings.json", "PLAIN_FLOWER_RESULT": "result.json"}
    wall_s = timed([sys.executable, "-m", "plain_flower"], out, {key: str(out / name) for key, name in files.items()})
    found = json.loads((out / "result.json").read_text(encoding="utf-8"))
    seconds = found["train_seconds"][:-1] or found["train_seconds"]
    return Run(wall_s, throughput(seconds, config), found["accuracy"], found["trainable"])


def throughput(seconds: list[float], config: Config) -> float:
    """Training images a second over the rounds given, less the first, which warms up, where there are others."""
    steady = seconds[1:] or seconds
    return config.fleet.cameras * config.fleet.images * config.local.epochs * len(steady) / sum(steady)


def timed(command: list[str], out: Path, extra: dict[str, str]) -> float:
    """Seconds that a process takes from start to end; what it says goes into a file that is shown if it fails."""
    path = os.pathsep.join([str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
    quiet = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    log = out.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        began = time.perf_counter()
        done = subprocess.run(
            command, env=os.environ | quiet | {"PYTHONPATH": path} | extra, stdout=file, stderr=file, check=False
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{log.read_text(encoding='utf-8')[-4000:]}")
    return seconds


def compared(
    runs: dict[str, list[Run]], experiment: Experiment, plain: Settings, args: argparse.Namespace
) -> dict[str, Any]:
    """The promised ratios, of medians, and what they were made of."""

    def median(arm: str, what: str) -> float:
        return float(statistics.median(getattr(run, what) for run in runs[arm]))

    walls = [p.wall_s / f.wall_s for p, f in zip(runs["plain"], runs["fleet"], strict=True)]
    rates = [f.images_per_s / p.images_per_s for p, f in zip(runs["plain"], runs["fleet"], strict=True)]
    return {
        "wall_ratio": round(statistics.median(walls), 3),
        "throughput_ratio": round(statistics.median(rates), 3),
        "wall_ratios": [round(x, 3) for x in walls],
        "throughput_ratios": [round(x, 3) for x in rates],
        **{
            arm: {
                "wall_s": round(median(arm, "wall_s"), 2),
                "images_per_s": round(median(arm, "images_per_s"), 1),
                "accuracy": round(median(arm, "accuracy"), 4),
                "trainable_parameters": runs[arm][0].trainable,
            }
            for arm in runs
        },
        "scenario": {
            "data": experiment.data.name,
            "model": experiment.config.model.name,
            "cameras": args.cameras,
            "images": args.images,
            "eval_images": args.eval_images,
            "rounds": args.rounds,
            "workers": args.workers,
            "fleet_statistics": args.statistics,
            "fleet_precision": experiment.precision,
            "fleet_settings": args.overrides,
            "plain_channels_last": plain.channels_last,
            "repeats": args.repeats,
        },
    }


if __name__ == "__main__":
    main()
