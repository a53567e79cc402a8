"""The engines that a run can go on, by name. Knows apps and grids; not what a run computes."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.clientapp.typing import Mod

from fed_lorac.client_app import make_client_app
from fed_lorac.config import Config
from fed_lorac.flower_private import task_identity
from fed_lorac.grid.in_process import InProcessGrid
from fed_lorac.rounds import Watch
from fed_lorac.server_app import conduct

__all__ = ["ENGINES", "run"]

Engine = Callable[[Config, Path, Watch, Sequence[Mod]], None]


def _local(config: Config, out: Path, watch: Watch, mods: Sequence[Mod]) -> None:
    with task_identity():
        conduct(InProcessGrid(make_client_app(config, mods), config.fleet.cameras), config, out, watch)


def _flower(config: Config, out: Path, watch: Watch, mods: Sequence[Mod]) -> None:
    # Ray takes seconds to import, and the local engine needs none of it.
    from fed_lorac.grid.simulation import simulate  # noqa: PLC0415

    simulate(config, out, watch, mods)


ENGINES: dict[str, Engine] = {"fleet": _local, "flower": _flower}
"""run.engine -> how it runs."""


def run(config: Config, out: Path, watch: Watch, mods: Sequence[Mod] = ()) -> None:
    """Run a config on its engine, into the folder `out`; `mods` are Flower's, around every message to a camera."""
    ENGINES[config.run.engine](config, out.absolute(), watch, mods)
