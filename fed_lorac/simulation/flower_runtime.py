"""Flower's own simulation runtime as an engine: our apps, its SuperLink and workers on Ray. Knows Flower's runtime; not
what a run computes.

Flower runs the ServerApp in a thread of its own and the cameras' workers under the caller's. Left to itself, Ctrl-C
would leave that thread waiting for replies that nobody makes; so the thread is told to stop, and waited for.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Lock

from flwr.app import Context
from flwr.clientapp.typing import Mod
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fed_lorac.client.app import make_client_app
from fed_lorac.config import Config
from fed_lorac.data.progress import at
from fed_lorac.errors import RunError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.grid.live import LiveGrid
from fed_lorac.grid.ray.cluster import joined
from fed_lorac.records.run_folder import RunFolder
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.simulation.run import run_rounds

__all__ = ["simulate"]


def simulate(config: Config, folder: RunFolder, watch: Watch, mods: Sequence[Mod] = ()) -> None:
    """Run a config on Flower's runtime over Ray into a run's folder; `mods` are Flower's, around every camera's turn.

    What goes wrong in the ServerApp comes out of here as it was raised.
    """
    build_experiment(config)  # so that bad data or a bad base is found before Ray starts
    conductor = _ServerThread(config, folder, watch)
    at("starting Flower's runtime")
    with task_identity(), joined(config.run) as share, _without_deprecation():
        try:
            run_simulation(
                server_app=conductor.app,
                client_app=make_client_app(config, mods),
                num_supernodes=config.fleet.cameras,
                backend_config={"client_resources": {**share}},
            )
        except RuntimeError as error:
            raise RunError(
                f"Flower's simulation runtime must outlive the run; it ended early: {error.__cause__ or error}. "
                "The rounds that were finished are in the run's folder; see Flower's log above."
            ) from error
        finally:
            conductor.stop()
    conductor.check()


class _ServerThread:
    """`run_rounds` as a ServerApp for the thread that Flower starts, which can be stopped and keeps what it raised."""

    def __init__(self, config: Config, folder: RunFolder, watch: Watch) -> None:
        self.app = ServerApp()
        self._error: BaseException | None = None
        self._stop, self._ended, self._lock, self._begun = Event(), Event(), Lock(), False

        @self.app.main()
        def main(grid: Grid, context: Context) -> None:
            with self._lock:
                if self._stop.is_set():  # nobody waits for it any more
                    return
                self._begun = True
            try:
                run_rounds(LiveGrid(grid, self._stop), config, folder, watch)
            except BaseException as error:
                # Kept, not raised: Flower would log it, wait three seconds, and lose it if the main thread raises too.
                self._error = error
            finally:
                self._ended.set()

    def stop(self) -> None:
        """Let the rounds end, and wait until what they found is written."""
        with self._lock:
            self._stop.set()
        if self._begun:
            self._ended.wait()

    def check(self) -> None:
        """Raise what the ServerApp raised."""
        if self._error is not None:
            raise self._error


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """Flower's advice to use `flwr run` instead is for its users; everything else it says is let through."""
    logger = logging.getLogger("flwr")
    logger.addFilter(_is_news)
    try:
        yield
    finally:
        logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return "`run_simulation` function is deprecated" not in record.getMessage()
