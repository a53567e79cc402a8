"""CIFAR-10-C's official files: ready-made weather, looked up. Knows blocks and severities; not how weather is made.

Each `<corruption>.npy` holds five blocks, severity 1 first, of the same test images in the same order, and
`labels.npy` their labels, once a block. An index is a position within the block, so the same index is the same
picture under every corruption and severity, and a split by index is a split by picture.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from fed_lorac.data.cifar import CIFAR10_CLASSES
from fed_lorac.data.dataset import Dataset, checked
from fed_lorac.data.progress import watched
from fed_lorac.data.splits import split_by_rank
from fed_lorac.data.store import cached, map_array
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.runtime.source import source_of

__all__ = ["SHARES", "SIDE", "OfficialWeather", "find", "open_blocks"]

SIDE = 32  # pixels
SEVERITIES = 5
SHARES = (0.0, 0.5, 0.5)  # cloud, fleet, evaluation: these are test images, so the cloud has none
FOLDERS = ("", "CIFAR-10-C", "cifar10c-sample")


@dataclass(frozen=True, eq=False)
class OfficialWeather(Dataset):
    """A data set whose weather is on file. `images` are the clean ones, and has no rows where there are none."""

    folder: Path
    blocks: dict[str, np.memmap]

    @property
    def corruptions(self) -> tuple[str, ...]:
        """The corruptions there are files for."""
        return tuple(self.blocks)

    def clean(self, indices: Int64[np.ndarray, " m"]) -> UInt8[np.ndarray, "m 32 32 3"]:
        """A copy of these pictures before they were corrupted.

        Raises:
            DataError: they are not known, or an index is out of range.
        """
        if not len(self.images):
            raise DataError(
                f"{self.name} has no clean images: CIFAR-10-C does not publish them. Put CIFAR-10's official files "
                f"(cifar-10-batches-py/) beside it, pass load(..., clean=...), or add {self.folder / '_clean.npy'}."
            )
        return super().clean(indices)

    def weather(
        self, indices: Int64[np.ndarray, " m"], corruption: str, severity: int, rng: np.random.Generator | None = None
    ) -> UInt8[np.ndarray, "m 32 32 3"]:
        """A copy of these pictures as published; nothing is drawn from `rng`.

        Raises:
            DataError: there is no file of this corruption, or an index is out of range.
            ConfigError: a severity other than 1 to 5.
        """
        self.check_weathers([corruption])
        if severity not in range(1, SEVERITIES + 1):
            raise ConfigError(f"A severity must be one of 1 to {SEVERITIES}; got {severity}.")
        block = len(self.labels)
        return np.array(self.blocks[corruption][(severity - 1) * block + checked(indices, block, self.name)])

    def weather_made_by(self, corruption: str) -> None:
        """Nothing is made: the pixels are on file."""

    def check_weathers(self, corruptions: Iterable[str], *, clear: bool = False) -> None:
        """Look, before a run starts, whether each of these has its file, and with `clear` if there are clean images.

        Raises:
            DataError: files are missing, all of which it names.
        """
        missing = [f"{self.folder / name}.npy" for name in dict.fromkeys(corruptions) if name not in self.blocks]
        if missing:
            raise DataError(
                f"Every corruption asked for must have its file; {', '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing. "
                f"There are {', '.join(self.blocks)}. Copy what is missing there, or ask for these only."
            )
        if clear:
            self.clean(np.empty(0, np.int64))


def find(root: Path) -> Path:
    """The folder with `labels.npy`: the root, or `CIFAR-10-C/` or `cifar10c-sample/` in it.

    Raises:
        DataError: none of them has it.
    """
    for folder in (root / name for name in FOLDERS):
        if (folder / "labels.npy").is_file():
            return folder
    raise DataError(
        f"CIFAR-10-C must have its labels.npy; none of {', '.join(str(root / name) for name in FOLDERS)} has one. "
        "Unpack CIFAR-10-C.tar there, or set the root or FED_LORAC_DATA."
    )


def open_blocks(
    folder: Path,
    *,
    shares: Sequence[float] = SHARES,
    clean: Dataset | None = None,
    cache_dir: Path | str | None = None,
) -> OfficialWeather:
    """Map the official files of any block length.

    Args:
        folder: holds `labels.npy`, the corruptions' files, and perhaps `_clean.npy`.
        shares: of cloud (0), fleet and evaluation.
        clean: where there is no `_clean.npy`, the CIFAR-10 whose evaluation pool is the block, in the same order.
        cache_dir: where the fingerprint is kept.

    Raises:
        DataError: a file is missing, damaged or has another shape or type; labels that differ between blocks or from
            the clean images'.
        ConfigError: a share for the cloud.
    """
    if shares[0] != 0:
        raise ConfigError(
            f"CIFAR-10-C is made of test images, the cloud's share must be 0; got shares = {tuple(shares)}."
        )
    labels = _labels(folder / "labels.npy")
    paths = sorted(path for path in folder.glob("*.npy") if path.stem not in {"labels", "_clean"})
    if not paths:
        raise DataError(
            f"CIFAR-10-C must have a .npy file a corruption; {folder} has none. Unpack CIFAR-10-C.tar there."
        )
    blocks = {path.stem: _images(path, SEVERITIES * len(labels)) for path in paths}
    images = _clean(folder / "_clean.npy", labels, clean)
    cloud, fleet, evaluation = split_by_rank(labels, shares)
    for array in (labels, cloud, fleet, evaluation):
        array.flags.writeable = False
    name = f"cifar10c ({len(labels)} images)"
    fingerprint = _fingerprint([folder / "labels.npy", *paths], images, cache_dir)
    return OfficialWeather(name, images, labels, CIFAR10_CLASSES, cloud, fleet, evaluation, fingerprint, folder, blocks)


def _labels(path: Path) -> Int64[np.ndarray, " block"]:
    """The labels of one block."""
    labels = map_array(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or len(labels) % SEVERITIES:
        raise DataError(
            f"{path} must hold whole numbers, as many for each of {SEVERITIES} blocks; it holds {labels.dtype} "
            f"of shape {labels.shape}. Copy it again."
        )
    blocks = labels.reshape(SEVERITIES, -1).astype(np.int64)
    if (blocks != blocks[0]).any():
        raise DataError(
            f"{path} must repeat the same labels in each of {SEVERITIES} blocks, and does not. Copy it again."
        )
    if blocks.min() < 0 or blocks.max() >= len(CIFAR10_CLASSES):
        raise DataError(
            f"{path} must hold labels 0 to 9; it holds {blocks.min()} to {blocks.max()}. Is it CIFAR-100-C?"
        )
    return np.array(blocks[0])


def _images(path: Path, count: int) -> np.memmap:
    images = map_array(path)
    if images.dtype != np.uint8 or images.shape != (count, SIDE, SIDE, 3):
        raise DataError(
            f"{path} must be uint8 of shape {(count, SIDE, SIDE, 3)} to fit labels.npy; it is {images.dtype} of shape "
            f"{images.shape}. Copy both again."
        )
    return images


def _clean(path: Path, labels: np.ndarray, given: Dataset | None) -> UInt8[np.ndarray, "block 32 32 3"]:
    """The clean pictures in block order: from the file, else from the given set's evaluation pool, else no rows."""
    if os.path.lexists(path):  # a link that leads nowhere is no reason to go without
        return _images(path, len(labels))
    if given is None:
        return np.empty((0, SIDE, SIDE, 3), np.uint8)
    pool = given.evaluation
    if not np.array_equal(given.labels[pool], labels):
        raise DataError(
            f"The clean images must have the labels of {path.parent / 'labels.npy'}, in the same order; "
            f"{given.name}'s test images do not. Give CIFAR-10's official files."
        )
    if given.images.shape[1:] != (SIDE, SIDE, 3):
        raise DataError(f"The clean images must be 32 x 32 in colour; {given.name}'s are {given.images.shape[1:]}.")
    in_one_run = len(pool) and pool[-1] - pool[0] == len(pool) - 1  # as in the official files: a view, not a copy
    pixels: np.ndarray = given.images[pool[0] : pool[-1] + 1] if in_one_run else given.images[pool]
    return pixels


def _fingerprint(paths: Sequence[Path], images: np.ndarray, cache_dir: Path | str | None) -> str:
    """A sha256 over labels, corrupted and clean images, taken once for these files' sizes and times of change."""

    def build() -> dict[str, np.ndarray]:
        digest = hashlib.sha256(repr((CIFAR10_CLASSES, images.shape)).encode())
        for path in watched(paths, total=len(paths), title="reading CIFAR-10-C"):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        digest.update(np.ascontiguousarray(images).data)
        return {"sha256": np.frombuffer(digest.digest(), np.uint8)}

    facts = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    clean = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    key = f"fingerprint of CIFAR-10-C in {paths[0].parent}; {facts}; clean {clean}; {source_of(__name__)}"
    return cached(key, build, cache_dir).arrays["sha256"].tobytes().hex()
