"""The engines that a run can go on, by name. Knows apps and grids; not what a run computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.simulation import run_simulation

from fed_lorac.client_app import make_client_app
from fed_lorac.config import Config
from fed_lorac.flower_private import task_identity
from fed_lorac.grid.in_process import InProcessGrid
from fed_lorac.rounds import Watch
from fed_lorac.server_app import conduct, make_server_app

__all__ = ["ENGINES", "run"]


def _local(config: Config, out: Path, watch: Watch) -> None:
    with task_identity():
        conduct(InProcessGrid(make_client_app(config), config.fleet.cameras), config, out, watch)


def _flower(config: Config, out: Path, watch: Watch) -> None:
    """Flower's simulation runtime on Ray: a local one, or the cluster that RAY_ADDRESS names."""
    resources: dict[str, Any] = {"num_cpus": config.run.threads, "num_gpus": 0 if config.run.device == "cpu" else 1}
    run_simulation(
        server_app=make_server_app(config, out.absolute(), watch),
        client_app=make_client_app(config),
        num_supernodes=config.fleet.cameras,
        backend_config={"client_resources": resources},
    )


ENGINES: dict[str, Callable[[Config, Path, Watch], None]] = {"local": _local, "flower": _flower}
"""run.engine -> how it runs."""


def run(config: Config, out: Path, watch: Watch) -> None:
    """Run a config on its engine, into the folder `out`."""
    ENGINES[config.run.engine](config, out, watch)
