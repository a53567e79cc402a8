"""The adapter alone, as a file, and back onto its base. Knows changes and fingerprints; not networks' formats.

The file holds a state (see `fed_lorac.adapters.deltas`), scale folded in: factor pairs and dense changes of the base's
own tensors, and with a camera the changes of its batch-norm statistics among them. BaseModel + file is the run's merged
model to float32 rounding (tested to 1e-6 + 1e-5 of each number): the run added its updates one by one, the file is
their sum.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import fold, join_deltas
from fed_lorac.errors import DataError, FactorError
from fed_lorac.export.facts import adapter_facts
from fed_lorac.export.finished import Finished, own_change_of_camera, statistics_of_camera
from fed_lorac.export.foreign import read_from
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.models.weights import Checkpoint, read_checkpoint
from fed_lorac.registry import ADAPTERS
from fed_lorac.runtime.files import home_expanded
from fed_lorac.runtime.tensor_files import tensor_bytes

__all__ = ["adapter_file", "adapter_of", "load_adapter"]


def adapter_file(run: Finished, camera: int | None) -> tuple[bytes, Mapping[str, str]]:
    """The run's adapter as an exported file's bytes, and the metadata in it."""
    adapter = adapter_of(run, camera)
    return tensor_bytes(adapter.tensors, adapter.metadata), adapter.metadata


def adapter_of(run: Finished, camera: int | None) -> Checkpoint:
    """The run's adapter and, where `camera` is given, its own change of the network and of the base's statistics."""
    shapes = {name: tensor.shape for name, tensor in run.model.tensors.items()}
    adapter = join_deltas(run.adapter.tensors, own_change_of_camera(run, camera), shapes)
    return Checkpoint({**adapter, **_statistics(run, camera)}, adapter_facts(run, camera))


def load_adapter(model: nn.Module, path: str | PathLike[str]) -> Mapping[str, str]:
    """Fold an exported adapter into the plain base network that it was made on, IN PLACE; returns the file's metadata.

    Where the network must adapt to each batch, it is first made to (`Adapter.prepare`), as the run's did.

    Raises:
        DataError: the file is no adapter, or is damaged.
        FactorError: the network is another base, or not a plain one; nothing is altered.
    """
    path = home_expanded(Path(path))
    if not path.is_file():
        raise DataError(f"An adapter is a file that `fed-lorac export --format adapter` wrote; {path} is not there.")
    checkpoint = read_checkpoint(path)
    said, own = checkpoint.metadata, fingerprint(named_tensors(model))
    if said.get("holds") != "adapter":
        raise DataError(f"An adapter is a file that `fed-lorac export --format adapter` wrote; {path} is not one.")
    with read_from(path):
        base, adapter = said["base"], _that_prepares(said)
    if base != own:
        raise FactorError(
            f"An adapter fits the base that it was trained on, {base}; this network is {own}. "
            "Load that base's weights first, with nothing folded into them yet."
        )
    if adapter is not None:
        adapter.prepare(model)
    fold(model, checkpoint.tensors)
    return said


def _that_prepares(said: Mapping[str, str]) -> Adapter | None:
    """What makes a network as the run's was, where its method is a built-in one: a file is not to say what is
    imported."""
    if "settings" not in said or said["method"] not in ADAPTERS.names:
        return None
    adapter: Adapter = ADAPTERS.make(said["method"], **json.loads(said["settings"]))
    return adapter


def _statistics(run: Finished, camera: int | None) -> dict[str, Tensor]:
    # The merged model has the base's statistics wherever a camera has its own.
    return {name: own - run.model.tensors[name] for name, own in statistics_of_camera(run, camera).items()}
