"""What evaluation costs where nothing is done twice, over where it is.

- base_ratio: the base's two rows (source, zero-byte) of a fleet: measured, over read from the cache, where a run of the
  same fleet has left them. The key is made anew each time, as a run does.
- network_ratio: evaluating every camera once, with a network built for each, over one network for all.

    python benchmarks/evaluation.py --json [--repeats 3] [-c KEY=VALUE]
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

from common import arguments, deliver, header, say, seconds_of

from fed_lorac.client.base_scores import base_scores
from fed_lorac.client.evaluate_base import evaluate_base
from fed_lorac.client.local_update import evaluate, this_thread
from fed_lorac.client.state import ClientState, GlobalModel
from fed_lorac.config import Config, load_config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.records.measured import Measured

_SEEDS = count(1)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-c", dest="settings", action="append", default=[])
    args = parser.parse_args()
    head = header()
    deliver(measured(args), head, as_json=args.json)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    fleet = load_config(None, args.settings)
    base, network = (statistics.median(one(fleet) for _ in range(args.repeats)) for one in (_base, _network))
    say(f"base read over measured {base:.1f}, one network for all cameras {network:.2f}")
    scenario = {"repeats": args.repeats, "settings": args.settings}
    return {"base_ratio": round(base, 1), "network_ratio": round(network, 2), "scenario": scenario}


def _seen(config: Config) -> Experiment:
    """An experiment with its cameras' images in memory."""
    experiment = build_experiment(config)
    for camera in experiment.fleet.cameras:
        experiment.images(camera.id, experiment.fleet.weather(camera.id, 0))
        experiment.clear_images(camera.id)
    return experiment


def _base(config: Config) -> float:
    """Another seed each time, as a process measures no base twice."""
    experiment = _seen(replace(config, run=replace(config.run, seed=config.run.seed + next(_SEEDS))))

    def measure() -> tuple[Measured, Measured]:
        found = Measured(), Measured()
        for camera in experiment.fleet.cameras:
            for scores, kept in zip(evaluate_base(experiment, 0, camera.id), found, strict=True):
                kept.weather[camera.id], kept.clean[camera.id] = scores.weather, scores.clean
        return found

    with tempfile.TemporaryDirectory() as cache:
        before, os.environ["FED_LORAC_CACHE"] = os.environ.get("FED_LORAC_CACHE"), cache
        try:
            measuring = seconds_of(lambda: base_scores(experiment, measure))
            reading = seconds_of(lambda: base_scores(experiment, _never))
        finally:
            os.environ.pop("FED_LORAC_CACHE") if before is None else os.environ.update(FED_LORAC_CACHE=before)
    return measuring / reading


def _never() -> tuple[Measured, Measured]:
    raise AssertionError("what was measured is kept")


def _network(config: Config) -> float:
    experiment, model = _seen(config), GlobalModel()

    def each(forget: Callable[[], None]) -> None:
        for camera in experiment.fleet.cameras:
            forget()
            evaluate(experiment, model, 1, camera.id, ClientState())

    each(lambda: None)
    return seconds_of(lambda: each(this_thread.measured.cache_clear)) / seconds_of(lambda: each(lambda: None))


if __name__ == "__main__":
    main()
