"""Starting a run from Python, or going on with one. Knows configs, folders and engines; not what a run computes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from fed_lorac.api.result import Run, load_run
from fed_lorac.config import Config, Overrides, Source, load_config, resumed_config
from fed_lorac.errors import ConfigError, FedLoracError
from fed_lorac.records.run_folder import can_go_on, check_new, folder_for
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.allocator import end_keeping
from fed_lorac.runtime.files import home_expanded

__all__ = ["Start", "prepare", "run"]

Place = str | PathLike[str]
_TELEMETRY = "FLWR_TELEMETRY_ENABLED"


def run(
    source: Source = None,
    overrides: Overrides = (),
    *,
    out: Place | None = None,
    resume: Place | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Run:
    """Run a simulation in this process, wait for it, and return what it found.

        run = fl.run("quickstart", {"run.rounds": 3, "fleet.corruptions": ["fog", "snow"]})
        run = fl.run(resume=run, overrides={"run.rounds": 6})

    Args:
        source: a shipped name, a TOML file, settings as a mapping, or a `Config`; None: the quick start, or with
            `resume` the config of that run.
        overrides: settings on top: a mapping of Python values, lists too, or `key=value` texts.
        out: the run's folder; None: `run.out`, or a new one, `runs/NAME-TIME`.
        resume: a run to go on with, or its folder, from its newest checkpoint.
        overwrite: the run that is in the folder already makes way when this one begins.
        progress: show how it goes on standard error, or in the notebook.

    The number of PyTorch's threads is put back at the end, and a Ray that the run started is shut down. After Ctrl-C
    the rounds that were finished are in the folder: `load_run` reads them, and `resume` goes on after them.

    Raises:
        ConfigError: a setting is unknown or makes no sense.
        DataError: images or weights are missing or damaged.
        RunError: the folder holds a run, there is none to go on with, or the run fails.
    """
    with prepare(source, overrides, out=out, resume=resume, overwrite=overwrite) as start:
        try:
            with _watch(start.config.run.rounds, progress) as watch:
                start.run(watch)
        except (KeyboardInterrupt, FedLoracError) as error:
            if can_go_on(start.folder):
                error.add_note(f"What was done is kept. To go on: fed_lorac.run(resume={str(start.folder)!r})")
            raise
    return load_run(start.folder)


@dataclass(frozen=True)
class Start:
    """A run that may begin: its config, its folder, whether one there goes on, and whether it makes way."""

    config: Config
    folder: Path
    resume: bool
    overwrite: bool

    def run(self, watch: Watch) -> None:
        """Run it to its end, in this process, which is left as it was."""
        with _undisturbed():
            from fed_lorac.simulation.engines import run as run_on_engine  # noqa: PLC0415  (PyTorch and Flower take seconds)

            run_on_engine(self.config, self.folder, watch, resume=self.resume, overwrite=self.overwrite)


@contextmanager
def prepare(
    source: Source = None,
    overrides: Overrides = (),
    *,
    out: Place | None = None,
    resume: Place | None = None,
    overwrite: bool = False,
) -> Iterator[Start]:
    """What is to be run, and where: found and checked before Flower and the images are waited for.

    A folder that is made here, under `runs/`, goes again at the end where nothing was left in it.
    """
    target, kept = _path(out), _path(resume)
    if kept is None:
        config = load_config(source, overrides)
    elif target not in (None, kept):
        raise ConfigError(
            f"A run goes on in its own folder; resume is {kept}, out is {target}. Give resume without out."
        )
    elif overwrite:
        raise ConfigError(f"A run that goes on is not overwritten; resume is {kept}. Give resume without overwrite.")
    else:
        config = resumed_config(kept, source, overrides)
    with folder_for(config, _name_of(source), kept or target) as folder:
        if kept is None:
            check_new(folder, config, overwrite=overwrite)
        yield Start(config, folder, kept is not None, overwrite)


def _path(place: Place | None) -> Path | None:
    return None if place is None else home_expanded(Path(place))


def _name_of(source: Source) -> str:
    """What a folder is called after."""
    if source is None:
        return "quickstart"
    return Path(source).stem if isinstance(source, str | Path) else "run"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put back what a run sets for this process: results repeat at equal numbers of threads only, a simulation has
    nothing to report to Flower's makers, and memory that is freed is kept for the next step."""
    import torch  # noqa: PLC0415  (a run that cannot begin needs no PyTorch)

    threads, asked = torch.get_num_threads(), os.environ.get(_TELEMETRY)
    os.environ.setdefault(_TELEMETRY, "0")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        end_keeping()
        if asked is None:
            os.environ.pop(_TELEMETRY, None)


@contextmanager
def _watch(rounds: int, progress: bool) -> Iterator[Watch]:
    if not progress:
        yield Watch()
        return
    from fed_lorac.reporting.notebook import watch_for  # noqa: PLC0415

    with watch_for(rounds) as watch:
        yield watch
