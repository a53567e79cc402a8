"""Checkpoints: all that a killed run needs to go on, in files that are whole or not there. Knows tensors, plain values
and frames as bytes; not what they mean, nor Flower.

A checkpoint is one safetensors file whose name carries its SHA-256; the updates that it builds on are files of their
own, written once, named in it with theirs. One that does not match was damaged, and the one before it stands in.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from fed_lorac.errors import RunError
from fed_lorac.files import clear_litter, tensor_bytes, write_bytes

__all__ = ["KEPT", "Checkpoint", "Checkpoints"]

KEPT = 2
"""How many checkpoints are kept, the newest ones."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `round`: plain values that JSON can carry, tensors by name, and every update so far by round."""

    round: int
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    updates: Mapping[int, bytes] = field(repr=False)


class Checkpoints:
    """The checkpoints in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "checkpoints"
        self._written: dict[int, str] = {}

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, its new updates first, and let all but the newest two go."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for round in checkpoint.updates.keys() - self._written.keys():
            write_bytes(self._update(round), checkpoint.updates[round])
            self._written[round] = _digest(checkpoint.updates[round])
        updates = {str(round): self._written[round] for round in sorted(checkpoint.updates)}
        said = json.dumps({"round": checkpoint.round, "facts": checkpoint.facts, "updates": updates})
        data = tensor_bytes(checkpoint.tensors, {"checkpoint": said})
        write_bytes(self._folder / f"round-{checkpoint.round:06d}-{_digest(data)[:16]}.safetensors", data)
        for old in self._files()[KEPT:]:
            old.unlink()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None where none was ever written. What is damaged is removed and named.

        Raises:
            RunError: there are checkpoints, and all are damaged.
        """
        clear_litter(self._folder)
        files = self._files()
        for path in files:
            try:
                found = self._read(path)
            except (OSError, ValueError, KeyError, SafetensorError) as cause:
                logging.getLogger(__name__).warning("%s is damaged (%s); the one before it is taken.", path, cause)
                path.unlink()
                continue
            self._written = {round: _digest(frame) for round, frame in found.updates.items()}
            return found
        if files:
            raise RunError(
                f"A run goes on from a whole checkpoint; all {len(files)} in {self._folder} were damaged. "
                "Start it again in another folder."
            )
        return None

    def _read(self, path: Path) -> Checkpoint:
        data = path.read_bytes()
        _check(data, path.stem.rpartition("-")[2])
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        said = json.loads(header["__metadata__"]["checkpoint"])
        updates = {}
        for round, digest in said["updates"].items():
            updates[int(round)] = self._update(int(round)).read_bytes()
            _check(updates[int(round)], digest)
        return Checkpoint(said["round"], said["facts"], safetensors.torch.load(data), updates)

    def _update(self, round: int) -> Path:
        return self._folder / f"update-{round:06d}.frame"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("round-*.safetensors"), reverse=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check(data: bytes, digest: str) -> None:
    if not digest or not _digest(data).startswith(digest):
        raise ValueError("its bytes do not match their SHA-256")
