"""Checkpoints: all that a killed run needs to go on, in files that are whole or not there. Knows tensors, plain values
and frames as bytes; not what they mean, nor Flower.

A checkpoint is one safetensors file whose name carries its SHA-256; the updates that it builds on are files of their
own, written once, named in it with theirs. One that does not match was damaged, and the one before it stands in.
Nothing is deleted for being unreadable: disks and networks have bad moments.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from fed_lorac.errors import RunError
from fed_lorac.runtime.files import clear_litter, discard, read_bytes, write_bytes, writing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ASIDE", "FOLDER", "KEPT", "Checkpoint", "Checkpoints", "has_checkpoints"]

FOLDER = "checkpoints"
"""Where in a run's folder they are."""

KEPT = 2
"""How many checkpoints are kept, the newest ones."""

ASIDE = ".unused"
"""What the name of a checkpoint ends in that a resumed run had to pass over."""


@dataclass(frozen=True)
class Checkpoint:
    """A run after `round`: plain values that JSON can carry, tensors by name, and every update so far by round."""

    round: int
    facts: Mapping[str, Any]
    tensors: "Mapping[str, Tensor]" = field(repr=False)
    updates: Mapping[int, bytes] = field(repr=False)


class Checkpoints:
    """The checkpoints in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._written: dict[int, str] = {}

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, its new updates first, and let all but the newest two go; RunError where it cannot."""
        from fed_lorac.runtime.tensor_files import tensor_bytes  # noqa: PLC0415  (a first look at a folder needs no PyTorch)

        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        for round in checkpoint.updates.keys() - self._written.keys():
            write_bytes(self._update(round), checkpoint.updates[round])
            self._written[round] = _digest(checkpoint.updates[round])
        updates = {str(round): self._written[round] for round in sorted(checkpoint.updates)}
        said = json.dumps({"round": checkpoint.round, "facts": checkpoint.facts, "updates": updates})
        data = tensor_bytes(checkpoint.tensors, {"checkpoint": said})
        write_bytes(self._folder / f"round-{checkpoint.round:06d}-{_digest(data)[:16]}.safetensors", data)
        for old in self._files()[KEPT:]:
            discard(old)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that can be used; None where none was ever written.

        Newer ones that are damaged, or that cannot be read, are named and set aside: their names then end in ASIDE.

        Raises:
            RunError: there are checkpoints and none can be used; all stay as they are.
        """
        clear_litter(self._folder)
        reasons: dict[Path, str] = {}
        for path in (files := self._files()):
            try:
                found = self._read(path)
            except (OSError, ValueError, KeyError, SafetensorError) as cause:
                reasons[path] = str(cause)
                continue
            _set_aside(reasons, path)
            self._written = {round: _digest(frame) for round, frame in found.updates.items()}
            return found
        if files:
            told = "; ".join(f"{path.name}: {reason}" for path, reason in reasons.items())
            raise RunError(
                f"A run goes on from a whole checkpoint; none of the {len(files)} in {self._folder} can be used "
                f"({told}). If the disk or network only failed for a moment, try again; else start a new run elsewhere."
            )
        return None

    def _read(self, path: Path) -> Checkpoint:
        from safetensors.torch import load  # noqa: PLC0415  (a first look at a folder needs no PyTorch)

        data = read_bytes(path, due=True)
        _check(data, path.stem.rpartition("-")[2])
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        said = json.loads(header["__metadata__"]["checkpoint"])
        updates = {}
        for round, digest in said["updates"].items():
            updates[int(round)] = read_bytes(update := self._update(int(round)), due=True)
            _check(updates[int(round)], digest, f"the update {update.name}")
        return Checkpoint(said["round"], said["facts"], load(data), updates)

    def _update(self, round: int) -> Path:
        return self._folder / f"update-{round:06d}.frame"

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("round-*.safetensors"), reverse=True)


def has_checkpoints(folder: Path) -> bool:
    """Whether a run's folder has a checkpoint, be it one that was set aside; a look at names alone."""
    return any((folder / FOLDER).glob("round-*"))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check(data: bytes, digest: str, what: str = "it") -> None:
    if not digest or not _digest(data).startswith(digest):
        raise ValueError(f"{what} is damaged, its bytes do not match their SHA-256")


def _set_aside(reasons: Mapping[Path, str], instead: Path) -> None:
    """What is newer than the checkpoint that the run goes on from is no part of its history any more."""
    for path, reason in reasons.items():
        aside = path.with_name(f"{path.name}{ASIDE}")
        logging.getLogger(__name__).warning(
            "%s cannot be used (%s); the run goes on from the one before, %s. It is kept as %s.",
            path,
            reason,
            instead.name,
            aside.name,
        )
        with writing(path):
            path.replace(aside)
