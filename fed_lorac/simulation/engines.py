"""The engines that a run can go on, by name. Knows apps, executors and grids; not what a run computes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from flwr.app import RecordDict

from fed_lorac.client.handlers import FleetApp
from fed_lorac.client.shapes import block_size_of
from fed_lorac.client.state import ClientState, GlobalModels
from fed_lorac.config import Config
from fed_lorac.data.progress import at
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.experiment.build import build_experiment, forget_experiments
from fed_lorac.experiment.machine import check_workers
from fed_lorac.grid.executor import BlockApp, Executor, SerialExecutor
from fed_lorac.grid.fleet_grid import FIRST_NODE, FleetGrid
from fed_lorac.grid.threads import ThreadExecutor
from fed_lorac.records.run_folder import RunFolder
from fed_lorac.reporting.logs.several import check_logs
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.runtime.precision import resolved_device
from fed_lorac.server.registration import Numbered
from fed_lorac.simulation.run import run_rounds

__all__ = ["ENGINES", "Fleet", "check_machine", "run"]

Engine = Callable[[Config, RunFolder, Watch], None]


def check_machine(config: Config) -> None:
    """Raise `RunError`, with nothing started, where this machine lacks the device, the room for the workers, or the
    library of a log."""
    resolved_device(config.run.device)
    check_logs(config.run)
    if not config.run.on_ray:
        check_workers(config.run)
    else:
        from fed_lorac.grid.ray.cluster import check_own  # noqa: PLC0415

        check_own(config.run)


def _hire(config: Config, app: Callable[[], BlockApp]) -> Executor:
    """This process where one worker is asked for, else its threads, or workers on Ray."""
    run = config.run
    if run.workers == 1:
        return SerialExecutor(app())
    if not run.on_ray:
        return ThreadExecutor(app(), run.workers, run.threads)
    at(f"starting {run.workers} workers on Ray")
    # Ray takes seconds to import, and one process needs none of it.
    from fed_lorac.grid.ray.executor import RayExecutor  # noqa: PLC0415

    return RayExecutor(config, app)


class Fleet:
    """Our grid with the cameras of a config, and their states."""

    def __init__(self, config: Config, app: Callable[[], BlockApp] | None = None) -> None:
        # Workers first: they come up while this process opens data and base for itself.
        try:
            self.executor = _hire(config, app or partial(FleetApp, config.to_flat()))
        except RunError:
            build_experiment(config)  # where the failure is this process's too, it comes out as itself
            raise
        try:
            experiment = build_experiment(config)
            self._global_models = GlobalModels(experiment)
            size = block_size_of(experiment)
        except BaseException:  # Ctrl-C too
            self.close()
            raise
        self.grid = FleetGrid(self.executor, config.fleet.cameras, block_size=size, shared=self._global_models.after)
        self.roster = Numbered(FIRST_NODE, config.fleet.cameras, -FIRST_NODE)

    def states(self) -> Mapping[int, RecordDict]:
        """Each node's state, by node id."""
        return self.grid.states

    def restore(self, states: Mapping[int, RecordDict], updates: Sequence[tuple[int, bytes]]) -> None:
        """Put states back, and fold the updates so far into the fleet's global model."""
        self.grid.restore(states)
        self._global_models.fold(updates)

    def fold(self, updates: Sequence[tuple[int, bytes]]) -> None:
        """Fold updates that no message may have brought: they were heard together."""
        self._global_models.fold(updates)

    def listen(self, heard: Callable[[int], int]) -> None:
        """Cameras have folded all updates up to the round that `heard` says, whether they had a message or not."""

        def recalled(node: int, state: RecordDict) -> RecordDict:
            then, now = ClientState.read(state), heard(self.roster[node])
            return replace(then, folded_round=now).write() if now > then.folded_round else state

        self.grid.recall = recalled

    def close(self) -> None:
        """Let the executor go."""
        self.executor.close()


def _fleet(config: Config, folder: RunFolder, watch: Watch) -> None:
    with task_identity(), closing(Fleet(config)) as fleet:
        run_rounds(fleet.grid, config, folder, watch, memories=fleet)


def _flower(config: Config, folder: RunFolder, watch: Watch) -> None:
    from fed_lorac.simulation.flower_runtime import simulate  # noqa: PLC0415

    simulate(config, folder, watch)


ENGINES: dict[str, Engine] = {"fleet": _fleet, "flower": _flower}
"""run.engine -> how it runs."""


def run(config: Config, out: Path, watch: Watch, *, resume: bool = False, overwrite: bool = False) -> None:
    """Run a config on its engine, into the folder `out`; with `resume`, go on with the run that is there, with
    `overwrite`, take its place."""
    if resume and config.run.engine != "fleet":
        raise ConfigError(
            'Only the engine "fleet" leaves checkpoints: Flower\'s runtime loses the state of its nodes. '
            f'Got run.engine = "{config.run.engine}"; start the run again.'
        )
    check_machine(config)
    forget_experiments()
    if overwrite:
        build_experiment(config)  # a run that cannot begin takes no other's place
    with RunFolder.owned(out.absolute(), config, resume=resume, overwrite=overwrite) as folder:
        ENGINES[config.run.engine](config, folder, watch)
