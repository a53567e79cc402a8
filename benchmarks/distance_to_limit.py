"""How far a round of FleetGrid is from the machine's limit: its time over one bare loop's that takes the same steps.

A hundred cameras of 100 images, ResNet-20 with the shipped weights, LoRA-C r = 2 (R = r), in this process; rounds that
only train. The round is all of it: messages, views, folding, frames up, judging, averaging, the way down, the ledger
and the checkpoint. The bare loop is one `training.train` call over the same images: no cameras, one network (or, where
that is faster, one block of as many networks as FleetGrid trains side by side), the same number of steps, batch size,
recipe, precision and threads. After each round comes one bare loop, in one process; the ratio is of neighbours.

    FED_LORAC_DATA=... python benchmarks/distance_to_limit.py --json [--cameras 100] [--rounds 3] [--device cpu]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from common import arguments, deliver, header, median_ratio, require, say, seconds_of

from fed_lorac.client.shapes import block_size_of
from fed_lorac.client.state import GlobalModel, build_network
from fed_lorac.config import Config, load_config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet import camera_data as views
from fed_lorac.records.ledger import Row
from fed_lorac.reporting.watch import Watch
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.simulation import engines
from fed_lorac.training.accuracy import batch_norms, reestimate_statistics
from fed_lorac.training.loop import train
from fed_lorac.training.recipe import Task


class EnoughError(Exception):
    """The rounds that are wanted have been timed."""


class Alternating(Watch):
    """After each round, runs the bare loop, and notes how long both took; the first of each warms up."""

    def __init__(self, bare: Callable[[], object], rounds: int) -> None:
        self._bare, self._rounds = bare, rounds
        self.round_s: list[float] = []
        self.bare_s: list[float] = []
        self._began = 0.0

    def phase(self, what: str, total: int) -> None:
        """Start the clock as the base has been measured and the first round begins."""
        if not self._began and what == "train":
            self._began = time.perf_counter()

    def round(self, row: Row, of: int) -> None:
        """Stop the clock; run the bare loop; start it again."""
        if row["cameras_left_out"]:
            raise RuntimeError(f"a benchmark's camera was left out: {row}")
        self.round_s.append(time.perf_counter() - self._began)
        self.bare_s.append(seconds_of(self._bare))
        say(f"round {row['round']}: {self.round_s[-1]:.2f} s, bare loop {self.bare_s[-1]:.2f} s")
        if len(self.round_s) > self._rounds:
            raise EnoughError
        self._began = time.perf_counter()


def main() -> None:
    args = parsed()
    require(args.device)
    experiment = build_experiment(config_of(args))
    loop = fastest_loop(experiment)
    watch = Alternating(loop, args.rounds)
    with tempfile.TemporaryDirectory() as scratch, suppress(EnoughError):
        engines.run(experiment.config, Path(scratch, "run"), watch)
    deliver(found(experiment, watch, args), header(args.device), as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--cameras", type=int, default=100)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one that warms up")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--statistics", default="batch", choices=["batch", "fixed"])
    parser.add_argument("--digits", action="store_true", help="scanned digits and ResNet-8: no real images needed")
    parser.add_argument("-c", dest="overrides", action="append", default=[], help="a setting, key=value")
    args = parser.parse_args()
    if not args.digits and not os.environ.get("FED_LORAC_DATA"):
        parser.error("real images are found through FED_LORAC_DATA, which is not set; --digits runs without them")
    return args


def config_of(args: argparse.Namespace) -> Config:
    settings: dict[str, object] = {
        "run.rounds": args.rounds + 2,  # the last one evaluates, and is never reached
        "run.evaluate_every": args.rounds + 2,
        "run.workers": 1,
        "run.threads": 1,
        "run.device": args.device,
        "fleet.cameras": args.cameras,
        "fleet.per_round": args.cameras,
        "fleet.images": args.images,
        "fleet.eval_images": 1,
        "adapter.lora-c.rank_mode": "r",
        "batch_norm.local.training_statistics": args.statistics,
    }
    if args.digits:
        settings |= {"data.name": "digits", "model.name": "resnet8"}
    return load_config(load_config("fog_snow_noise", settings), args.overrides)


def fastest_loop(experiment: Experiment) -> Callable[[], object]:
    """The bare loop over one network, or over a block of FleetGrid's size, whichever is faster here."""
    sizes = sorted({1, block_size_of(experiment)})
    loops = {size: bare_loop(experiment, size) for size in sizes}
    if len(loops) == 1:
        return loops[sizes[0]]
    for loop in loops.values():
        loop()
    times = {size: seconds_of(loop) for size, loop in loops.items()}
    say(f"bare loop, seconds by networks side by side: {times}")
    return loops[min(times, key=lambda size: times[size])]


def bare_loop(experiment: Experiment, networks: int) -> Callable[[], object]:
    """All cameras' images as if they were those of `networks` cameras: the same steps, and nothing between them."""
    seen = [views.camera_data(experiment.data, camera, experiment.plan.seed) for camera in experiment.fleet.cameras]
    steps = sum(experiment.plan.steps_on(len(view.train)) for view in seen)
    images, labels = torch.cat([view.train for view in seen]), torch.cat([view.train_labels for view in seen])
    models = []
    for _ in range(networks):
        model = build_network(experiment, GlobalModel(), {})
        reestimate_statistics(model, seen[0].train, experiment.precision, experiment.base.normalization)
        experiment.adapter.attach(model, torch_stream(0, "bare loop"))
        model.train()
        if experiment.plan.batch_norm.fixed:
            for _, norm in batch_norms(model):
                norm.eval()
        models.append(model)
    recipe = experiment.plan.recipe_in(1)

    def loop() -> None:
        parts = range(networks)
        rngs = [stream(0, "bare loop", part) for part in parts]
        shares = [steps // networks + (part < steps % networks) for part in parts]
        tasks = [Task(images[p::networks], labels[p::networks], shares[p], rngs[p]) for p in parts]
        train(models, tasks, recipe=recipe)

    return loop


def found(experiment: Experiment, watch: Alternating, args: argparse.Namespace) -> Mapping[str, Any]:
    rounds, bare = watch.round_s[1:], watch.bare_s[1:]
    images = sum(len(camera.train) for camera in experiment.fleet.cameras)
    return {
        "ratio": round(median_ratio(rounds, bare), 4),
        "round_s": rounded(rounds),
        "bare_loop_s": rounded(bare),
        "images_per_s": round(images * experiment.config.local.epochs / statistics.median(rounds), 1),
        "ms_a_camera_beyond_the_steps": round(
            1e3 * statistics.median(r - b for r, b in zip(rounds, bare, strict=True)) / args.cameras, 2
        ),
        "scenario": {
            "data": experiment.data.name,
            "model": experiment.config.model.name,
            "cameras": args.cameras,
            "images": args.images,
            "block_size": block_size_of(experiment),
            "statistics": args.statistics,
            "precision": experiment.precision,
            "settings": args.overrides,
        },
    }


def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]


if __name__ == "__main__":
    main()
