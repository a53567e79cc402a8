"""A finished run, read from its folder again. Knows the folder's files and the config in it; not formats."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from torch import Tensor, nn

from fed_lorac.adapters.deltas import fold
from fed_lorac.config import Config, load_config
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.experiment.base_model import fresh_model
from fed_lorac.experiment.build import open_data
from fed_lorac.models.fitting import put
from fed_lorac.models.weights import Checkpoint, load_into, read_checkpoint
from fed_lorac.records.run_folder import CONFIG_FILE, SUMMARY_FILE, TENSOR_FILES
from fed_lorac.runtime.normalization import Normalization
from fed_lorac.training.accuracy import has_batch_norm

__all__ = ["Finished", "check_camera", "finished_run", "network_of", "own_change_of_camera", "statistics_of_camera"]


@dataclass(frozen=True, eq=False)
class Finished:
    """A run that is done: its config, its classes' names, and the three tensor files that it left."""

    folder: Path
    config: Config
    classes: tuple[str, ...]
    model: Checkpoint
    adapter: Checkpoint
    cameras: Checkpoint

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the run says of itself: base, folded round, data and so on."""
        return self.model.metadata

    @property
    def normalization(self) -> Normalization:
        """What its pixels are normalised by; runs of before it was written down had CIFAR-10's."""
        return Normalization.parse(self.model.metadata.get("normalization", "cifar10"))


def finished_run(folder: Path) -> Finished:
    """Read the run in `folder`; RunError where none was finished there, DataError where a file is damaged."""
    missing = [name for name in (CONFIG_FILE, SUMMARY_FILE, *TENSOR_FILES) if not (folder / name).is_file()]
    if missing:
        raise RunError(
            f"What is exported is a finished run; {folder} has no {missing[0]}. Give a run's folder, or "
            f"finish it: `fed-lorac run --resume {folder}`, in Python fed_lorac.run(resume={str(folder)!r})."
        )
    config = load_config(folder / CONFIG_FILE)
    model, adapter, cameras = (read_checkpoint(folder / name) for name in TENSOR_FILES)
    return Finished(folder, config, _classes(config, model.metadata), model, adapter, cameras)


def network_of(run: Finished, camera: int | None) -> nn.Module:
    """The plain network with the adapter merged and, where `camera` is given, what is its own: statistics, and under
    some strategies a change of the network. In eval mode. It adapts to each batch, where that is what was learned."""
    model = fresh_model(run.config, len(run.classes))
    run.config.adapter.first().prepare(model)
    load_into(model, run.model, str(run.folder / "model.safetensors"))
    put(model, statistics_of_camera(run, camera))
    fold(model, own_change_of_camera(run, camera))
    return model.eval()


def own_change_of_camera(run: Finished, camera: int | None) -> Mapping[str, Tensor]:
    """What the camera's network has beside the merged model, as a change of it; empty where it has nothing."""
    place = None if camera is None else run.cameras.tensors.get(f"own.camera-{camera}")
    prefix = "" if place is None else f"own-{int(place)}."
    return {k.removeprefix(prefix): v for k, v in run.cameras.tensors.items() if prefix and k.startswith(prefix)}


def statistics_of_camera(run: Finished, camera: int | None) -> Mapping[str, Tensor]:
    """The camera's own running means and variances by name; empty where it has none but the base's.

    ConfigError where the fleet has no such camera, RunError where it should have left statistics and did not.
    """
    check_camera(run, camera)
    if camera is None:
        return {}
    prefix = f"camera-{camera}."
    own = {k.removeprefix(prefix): v for k, v in run.cameras.tensors.items() if k.startswith(prefix)}
    if not own and run.config.batch_norm.mode == "local" and _has_batch_norm(run):
        raise RunError(
            f"A camera's own statistics are those it had at the run's end; camera {camera} left none in {run.folder} "
            "(was it never reached?). Choose another camera, or give none for the base's."
        )
    return own


def check_camera(run: Finished, camera: int | None) -> None:
    """ConfigError where the fleet has no such camera: 1.0, True and "1" are names of none."""
    cameras = run.config.fleet.cameras
    whole = isinstance(camera, Integral) and not isinstance(camera, bool)
    if camera is not None and not (whole and 0 <= camera < cameras):
        raise ConfigError(f"This run's cameras are 0 to {cameras - 1}; got {camera!r}. Choose one of these.")


def _has_batch_norm(run: Finished) -> bool:
    return has_batch_norm(fresh_model(run.config, len(run.classes)))


def _classes(config: Config, metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The classes' names, by index; runs of before they were written down have to open their data for them."""
    told = metadata.get("classes")
    return tuple(json.loads(told)) if told else open_data(config).classes
