"""FleetGrid against Flower, BlazeFL and pfl-research, the same scenario, end to end and steady.

Twelve cameras of 500 images, ResNet-20 with the shipped weights, LoRA-C r = 2 (R = r), batch 50, one epoch a round, two
workers of one thread (FleetGrid's are threads of its process; `-c run.pool=ray` has Ray's processes instead); the
peers with loralib's ConvLoRA. The base is measured before the first round and the model after the last, on the same
images, by the same passes. Every arm may use the same precision. The weather is made before any arm starts, and
FleetGrid keeps no scores of the base from run to run. What each arm is: `benchmarks/peers`. Each is a process of its
own; they take turns.

Each peer's ratios are medians over the repeats, above 1 where FleetGrid is better:

- wall_ratio: seconds of the whole process, imports, start-up and evaluation included, peer / FleetGrid.
- train_ratio: training images a second over rounds that only train, but for the first, FleetGrid / peer. A peer's clock
  runs from asking the first camera to having averaged; FleetGrid's is its ledger's, and has the way down in it.
- evaluation_ratio: seconds of both evaluations, peer / FleetGrid. What a framework starts when it is first asked is in
  it.
- memory_ratio: the most memory of all its processes at once (proportional set size, one look a second), likewise.

`share_of_peak` is the arithmetic of an arm's training, counted, over what as many cores as there are workers would do
in a matrix product of that arm's precision.

    pip install -e ".[peers]"
    FED_LORAC_DATA=... python benchmarks/fleet_vs_peers.py --json [--peers flower blazefl pfl] [--python blazefl=PATH]
        [--rounds 5] [--repeats 2] [--statistics batch|fixed] [--precision auto|fp32|bf16]

BlazeFL wants Python 3.14, pfl an older one, so one of them has an environment of its own: `--python blazefl=PATH` names
a Python 3.14, without a GIL if it can be, with blazefl, loralib, safetensors, jaxtyping, numpy and the same torch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, arguments, deliver, header, require, say
from peers.arithmetic import fastest_form, fleetgrid_flops, peak_flops, peers_flops
from peers.process import Took, timed
from peers.settings import RESULT, SETTINGS, Found, Settings

from fed_lorac.config import load_config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.models.weights import shipped_path

BENCHMARKS = Path(__file__).resolve().parent
NEEDS = {"flower": ("flwr", "ray", "loralib"), "blazefl": ("blazefl", "loralib"), "pfl": ("pfl", "loralib")}
OURS = "fleetgrid"
FIND = "import sys; from importlib.util import find_spec; print(*[n for n in sys.argv[1:] if find_spec(n) is None])"


@dataclass(frozen=True)
class Run:
    """What one arm's process came to."""

    took: Took
    found: Found
    images_per_s: float


def main() -> None:
    args = parsed()
    require(args.device)
    head = header(args.device)
    torch.set_num_threads(1)
    experiment = build_experiment(load_config("fog_snow_noise", settings_of(args)))
    absent = {peer: lacks for peer in args.peers if (lacks := lacking(peer, args.python))}
    for peer, lacks in absent.items():
        say(f"{peer} is left out: its Python lacks {lacks}")
    arms = [OURS, *(peer for peer in args.peers if peer not in absent)]
    if len(arms) == 1:
        raise SystemExit(f"No peer can run: {absent}. Install them, or name each one's Python with --python.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        peers = fastest_form(peers_settings(experiment, folder, args), ("fp32", experiment.precision))
        runs: dict[str, list[Run]] = {arm: [] for arm in arms}
        for repeat in range(args.repeats):
            for arm in arms:
                runs[arm].append(one_run(arm, peers, folder / f"{arm}-{repeat}", args))
                say(f"{arm} {repeat}: {runs[arm][-1]}")
        result = compared(runs) | {"arms": described(runs, experiment, peers)}
    result |= {"absent": absent, "scenario": scenario(experiment, peers, args)}
    deliver(result, head, as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--peers", nargs="+", default=list(NEEDS), choices=list(NEEDS))
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="the Python of a peer's own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="runs of each arm, in turn")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="that all may use")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--statistics", default="batch", choices=["batch", "fixed"], help="FleetGrid's statistics")
    parser.add_argument("--cameras", type=int, default=12)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--eval-images", type=int, default=250)
    parser.add_argument("--digits", action="store_true", help="scanned digits and ResNet-8: no real images, no ratio")
    parser.add_argument("-c", dest="overrides", action="append", default=[], help="a setting of FleetGrid's, key=value")
    args = parser.parse_args()
    pairs = [text.partition("=") for text in args.python]
    if wrong := [name for name, _, path in pairs if name not in NEEDS or not path]:
        parser.error(f"--python takes PEER=PATH, with one of {', '.join(NEEDS)}; got {wrong}")
    args.python = {name: path for name, _, path in pairs}
    if not args.digits and not os.environ.get("FED_LORAC_DATA"):
        parser.error("real images are found through FED_LORAC_DATA, which is not set; --digits runs without them")
    return args


def settings_of(args: argparse.Namespace) -> list[str]:
    """FleetGrid's settings, as `-c` takes them."""
    settings: dict[str, object] = {
        "run.rounds": args.rounds,
        "run.evaluate_every": args.rounds,
        "run.workers": args.workers,
        "run.pool": "threads",
        "run.threads": 1,
        "run.device": args.device,
        "run.precision": args.precision,
        "run.fleet.keep_base_scores": "false",
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


def lacking(peer: str, pythons: Mapping[str, str]) -> str:
    """The packages that the peer's Python cannot find."""
    command = [pythons.get(peer, sys.executable), "-c", FIND, *NEEDS[peer]]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def peers_settings(experiment: Experiment, folder: Path, args: argparse.Namespace) -> Settings:
    """The scenario in the arms' words; writes every camera's images, and so fills FleetGrid's cache too."""
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
        epochs=local.epochs,
        batch_size=local.batch_size,
        lr=local.lr,
        alpha=experiment.adapter.scale,
        model=experiment.config.model.name,
        classes=len(experiment.data.classes),
        device=args.device,
        workers=args.workers,
        fleetgrid=tuple(settings_of(args)),
    )


def one_run(arm: str, settings: Settings, out: Path, args: argparse.Namespace) -> Run:
    """`python -m peers ARM`, whole."""
    files = {SETTINGS: out.with_suffix(".settings.json"), RESULT: out.with_suffix(".json")}
    settings.write(files[SETTINGS])
    path = os.pathsep.join([str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
    quiet = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    environment = quiet | {"PYTHONPATH": path} | {name: str(file) for name, file in files.items()}
    took = timed([args.python.get(arm, sys.executable), "-m", "peers", arm], environment, out.with_suffix(".log"))
    found = Found(**json.loads(files[RESULT].read_text(encoding="utf-8")))
    steady = found.train_seconds[1:-1] or found.train_seconds[-1:]
    images = settings.cameras * args.images * settings.epochs
    return Run(took, found, images * len(steady) / sum(steady))


def compared(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Each peer's ratios, medians over runs that took turns, and the least of each."""
    found = {peer: ratios(its, runs[OURS]) for peer, its in runs.items() if peer != OURS}
    best = {name: min(its[name] for its in found.values()) for name in next(iter(found.values()))}
    return {**found, "best_peer": best}


def ratios(theirs: Sequence[Run], ours: Sequence[Run]) -> dict[str, float]:
    pairs = list(zip(theirs, ours, strict=True))
    each = {
        "wall_ratio": [its.took.wall_s / own.took.wall_s for its, own in pairs],
        "train_ratio": [own.images_per_s / its.images_per_s for its, own in pairs],
        "evaluation_ratio": [its.found.evaluation_seconds / own.found.evaluation_seconds for its, own in pairs],
        "memory_ratio": [its.took.peak_mib / own.took.peak_mib for its, own in pairs],
    }
    return {name: round(statistics.median(values), 3) for name, values in each.items()}


def described(runs: Mapping[str, Sequence[Run]], experiment: Experiment, peers: Settings) -> dict[str, Any]:
    """What each arm came to, and the share of the cores' peak that its training reaches."""
    forms = {arm: (peers.precision, peers_flops(peers)) for arm in runs}
    forms[OURS] = (experiment.precision, fleetgrid_flops(experiment))
    peaks = {precision: peak_flops(precision, peers.device) for precision, _ in set(forms.values())}
    cores = peers.workers if peers.device == "cpu" else 1
    found = {}
    for arm, its in runs.items():
        precision, flops = forms[arm]
        middle = {
            "wall_s": statistics.median(run.took.wall_s for run in its),
            "images_per_s": statistics.median(run.images_per_s for run in its),
            "evaluation_s": statistics.median(run.found.evaluation_seconds for run in its),
            "peak_mib": statistics.median(run.took.peak_mib for run in its),
        }
        share = middle["images_per_s"] * flops / (cores * peaks[precision])
        last = its[-1].found
        found[arm] = {
            **{name: round(value, 2) for name, value in middle.items()},
            "walls_s": [round(run.took.wall_s, 2) for run in its],
            **{name: round(getattr(last, name), 4) for name in ("source", "zero_byte", "accuracy", "accuracy_clean")},
            "trainable_parameters": last.trainable,
            "precision": precision,
            "mflops_an_image": round(flops / 1e6, 1),
            "peak_gflops_a_core": round(peaks[precision] / 1e9, 1),
            "share_of_peak": round(share, 4),
            "environment": last.environment,
        }
    return found


def scenario(experiment: Experiment, peers: Settings, args: argparse.Namespace) -> dict[str, Any]:
    names = ("cameras", "images", "eval_images", "rounds", "workers", "repeats")
    return {
        "data": experiment.data.name,
        "model": experiment.config.model.name,
        **{name: getattr(args, name) for name in names},
        "fleetgrid_statistics": args.statistics,
        "fleetgrid_pool": str(experiment.config.run.pool),
        "fleetgrid_settings": args.overrides,
        "peers_precision": peers.precision,
        "peers_channels_last": peers.channels_last,
    }


if __name__ == "__main__":
    main()
