"""Reading a file of weights, whatever its ending says: safetensors, or a state_dict of torch.save. Knows files and
tensors; not networks' layers.

A pickle runs code unless it is kept from it: PyTorch's reader for weights alone is used, which makes tensors and plain
values. Beside them it may make what training scripts put into checkpoints and what can do nothing: settings of argparse
and NumPy's numbers.
"""

import argparse
import json
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from fed_lorac.errors import DataError
from fed_lorac.models.file_kinds import head_of, is_pickle, is_safetensors, is_zip, other_kind
from fed_lorac.models.nested import chosen
from fed_lorac.models.renaming import renamed

__all__ = ["Checkpoint", "read_checkpoint"]

_SAVE = 'Where it was made, save the weights alone: torch.save(model.state_dict(), "weights.pth")'
# NumPy's numbers and arrays name what rebuilds them, in a module that has moved.
_REBUILT: list[Any] = [value.__reduce__()[0] for value in (np.float64(), np.zeros(1))]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
    *((rebuild, f"numpy.{core}.multiarray.{rebuild.__name__}") for rebuild in _REBUILT for core in ("core", "_core")),
]
_CLASSES = ("classes", "class_names", "class_to_idx")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, what their file says of how they were trained (empty where it says nothing), and what was done
    to make them of what is in the file."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, names: Collection[str] = ()) -> Checkpoint:
    """The tensors in a file. `names`: a network's, by which the right ones are found where there are several.

    Raises:
        DataError: there is no such file, or it is damaged, or of another kind, or no choice is right.
    """
    path = Path(path)
    head = head_of(path)
    if is_safetensors(head):
        tensors, metadata = _safetensors(path)
        return _fitted(tensors, metadata, names, path) if names else Checkpoint(tensors, metadata)
    if is_zip(head):
        _check_archive(path)
    elif not is_pickle(head):
        raise other_kind(path, head)
    return _fitted(_unpickled(path), {}, names, path)


def _fitted(found: object, metadata: Mapping[str, str], names: Collection[str], path: Path) -> Checkpoint:
    tensors, keys, notes = chosen(found, names, str(path))
    tensors, more = renamed(tensors, names)
    return Checkpoint(tensors, {**_classes_beside(found, keys), **metadata}, (*notes, *more))


def _classes_beside(found: Any, keys: Sequence[str]) -> dict[str, str]:
    """What a dict on the way to the tensors says of their classes, as metadata says it; the nearest dict counts."""
    around = [found]
    for key in keys:
        around.append(around[-1][key])
    listed = (_by_index(place.get(key)) for place in reversed(around) for key in _CLASSES)
    names = next(filter(None, listed), None)
    return {"classes": json.dumps(names)} if names else {}


def _by_index(said: object) -> list[str]:
    """Names by index, out of a list of them or a dict from each to its index; none out of anything else."""
    if isinstance(said, Mapping):
        places = {place: name for name, place in said.items() if isinstance(place, int)}
        said = [places.get(place) for place in range(len(said))]
    return list(said) if isinstance(said, list | tuple) and all(isinstance(name, str) for name in said) else []


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as cause:
        raise DataError(
            f"A safetensors file must be whole; {path} has {path.stat().st_size:,} bytes: {cause}. Was it truncated? "
            "Copy or download it again."
        ) from None


def _check_archive(path: Path) -> None:
    """DataError where an archive is cut short, damaged, or not of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.namelist()
            for member in archive.infolist():
                if member.CRC:  # 0: it was saved without
                    _read_through(archive, member)
    except Exception as cause:  # whatever a damaged archive leads to
        raise DataError(
            f"A file of torch.save must be whole; {path} has {path.stat().st_size:,} bytes: {cause}. Was it truncated? "
            "Copy or download it again."
        ) from None
    parts = {name.partition("/")[2] for name in inside}
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        raise DataError(
            f"A file of weights holds a state_dict; {path} is TorchScript, a whole program. Take its weights out: "
            f'torch.save(torch.jit.load("{path}").state_dict(), "weights.pth").'
        )
    if "data.pkl" not in parts:
        raise DataError(
            f"A file of weights holds a state_dict; {path} is a zip archive of {', '.join(inside[:3]) or 'nothing'}. "
            "Unpack it, and name the weights in it."
        )


def _read_through(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as file:  # torch.load does not compare checksums; at its end, zipfile does
        while file.read(1 << 20):
            pass


def _unpickled(path: Path) -> object:
    try:
        # By its path, torch.load would go by its ending.
        with warnings.catch_warnings(), safe_globals(_HARMLESS), path.open("rb") as file:
            warnings.simplefilter("ignore")  # of how it was pickled, which its user did not do
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as cause:  # whatever a damaged pickle leads to
        # PyTorch's own text advises to load it unsafely.
        if objects := _objects(path, str(cause)):
            raise DataError(
                f"A file of weights holds a state_dict, tensors by name; {path} holds whole Python objects "
                f"({', '.join(objects[:3])}), which are never loaded as they can run code. {_SAVE}."
            ) from None
        raise DataError(
            f"A file of weights must be a whole file of torch.save; {path} ({path.stat().st_size:,} bytes) cannot be "
            f"read to its end ({type(cause).__name__}). Was it truncated, or written by another program? {_SAVE}."
        ) from None


def _objects(path: Path, said: str) -> list[str]:
    """The classes and functions that a pickle asks for and does not get."""
    try:
        with safe_globals(_HARMLESS), path.open("rb") as file:
            return sorted(get_unsafe_globals_in_checkpoint(file))
    except Exception:  # a file of before PyTorch 1.6 is not looked through
        return re.findall(r"GLOBAL ([\w.]+)", said)[:1]
