"""Small whole runs for tests: scanned digits, a ResNet-8 of width 4 with drawn weights, a second or two a run."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid

from fed_lorac.config import Config, load_config
from fed_lorac.records.run_folder import RunFolder
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.run import run_rounds

ROOT = Path(__file__).resolve().parents[2]

TINY = {
    "model.weights": "none",
    "width": 4,
    "run.rounds": 2,
    "run.threads": 1,
    "run.workers": 1,
    "run.precision": "fp32",
    "local.epochs": 1,
    "local.batch_size": 25,
    "fleet.cameras": 4,
    "fleet.per_round": 3,
    "fleet.images": 50,
    "fleet.eval_images": 40,
    "fleet.severities": "3",
}


def tiny(**changes: object) -> Config:
    """The config of a small run; `run__rounds=3` sets `run.rounds`."""
    return load_config(None, words(**changes))


def words(**changes: object) -> list[str]:
    """The same as `key=value`, for a command line; `width=None` leaves a setting out."""
    settings = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return [f"{key}={value}" for key, value in settings.items() if value is not None]


def rows(path: Path, *without: str) -> list[dict[str, Any]]:
    """A ledger file's rows, less some columns."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in without} for line in lines]


def rounds_run(grid: Grid, config: Config, out: Path, watch: Watch | None = None, **more: Any) -> dict[str, Any]:
    """A run over any grid, into a folder of its own."""
    with RunFolder.owned(out, config) as folder:
        return run_rounds(grid, config, folder, watch or Watch(), **more)


def simulated(config: Config, out: Path, watch: Watch, mods: Sequence[Mod] = ()) -> None:
    """A run on Flower's own runtime, into a folder of its own."""
    from fed_lorac.simulation.flower_runtime import simulate  # Ray takes a second to import

    with RunFolder.owned(out, config) as folder:
        simulate(config, folder, watch, mods)


def environment(**extra: str) -> dict[str, str]:
    """The environment for a process of its own that runs this source tree."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | extra
