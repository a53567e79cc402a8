"""CIFAR-10 and CIFAR-100 as their authors publish them. Knows torchvision's list of files; not splits or caches.

Images are ordered as an image folder of them is: training files first, then by class, then by the file name that their
authors gave each. So the published files and a lossless copy in folders are one data set, with one fingerprint and one
share of the cloud: a base that was trained on the cloud's images of one never met the fleet's of the other.

The official files are Python pickles, and a pickle from outside can run code. So each file must first have the md5
that torchvision publishes for it, and is then read by an unpickler that can make arrays and plain values only.
"""

import hashlib
import pickle
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from fed_lorac.data.decode import decode_all, resize
from fed_lorac.data.disk import locked, writing
from fed_lorac.data.image_folder import Listing
from fed_lorac.errors import DataError

__all__ = ["CIFAR10_CLASSES", "Official", "download", "is_there", "official", "read", "read_copy", "stamp"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_PIXELS = "4908da5c82d8ba3480f7abe8c913da9179469799a7cc25b28909ad6206c02abf"
"""sha256 of the 60,000 published images, uint8 (60000, 32, 32, 3), in the order that the top of this file says."""
SIDE = 32  # pixels


@dataclass(frozen=True)
class Official:
    """One published version: the folder its archive unpacks to, and the md5 of each file in it."""

    name: str
    folder: str
    url: str
    archive: str
    archive_md5: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]
    meta: tuple[str, str]
    label_key: str
    classes_key: str

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Name and md5 of every file that is read."""
        return (*self.train, *self.test, self.meta)


def official(name: str) -> Official:
    """Torchvision's description of `cifar10` or `cifar100`."""
    from torchvision import datasets  # noqa: PLC0415  (slow to import, and a cached start does without)

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    train, test = (tuple((file, md5) for file, md5 in files) for files in (source.train_list, source.test_list))
    key = source.meta["key"]
    return Official(
        name=name,
        folder=source.base_folder,
        url=source.url,
        archive=source.filename,
        archive_md5=source.tgz_md5,
        train=train,
        test=test,
        meta=(source.meta["filename"], source.meta["md5"]),
        label_key="fine_labels" if key.startswith("fine") else "labels",
        classes_key=key,
    )


def download(version: Official, root: Path) -> None:
    """Fetch and unpack the official archive, unless another process just has.

    Torchvision fetches it and checks its md5 before unpacking; the files are unpacked aside and then moved, each in
    one step, so no process ever sees half of one.

    Raises:
        DataError: no network, or a wrong md5.
        RunError: the root cannot be written.
    """
    from torchvision.datasets.utils import download_and_extract_archive  # noqa: PLC0415

    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked(root / f".{version.folder}.lock", wait=True):
        if is_there(version, root):
            return
        with writing(root), tempfile.TemporaryDirectory(dir=root, prefix=f".{version.folder}-") as aside:
            try:
                download_and_extract_archive(
                    version.url, root, extract_root=aside, filename=version.archive, md5=version.archive_md5
                )
            except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
                raise DataError(
                    f"{version.archive} must arrive whole in {root}; fetching {version.url} failed: {error}. "
                    "Try again, or fetch it by other means, unpack it there and leave download off."
                ) from error
            (root / version.folder).mkdir(exist_ok=True)
            for name, _ in version.files:
                (Path(aside) / version.folder / name).replace(root / version.folder / name)


def is_there(version: Official, root: Path) -> bool:
    """Whether every official file has been unpacked below the root."""
    return all((root / version.folder / name).is_file() for name, _ in version.files)


def stamp(version: Official, root: Path) -> str:
    """Names, sizes and times of change of the official files, as text; none is opened.

    Raises:
        DataError: a file is missing.
    """
    return repr([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _paths(version, root)])


def _paths(version: Official, root: Path) -> list[Path]:
    paths = [root / version.folder / name for name, _ in version.files]
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{version.name} must have all its files; {path} is missing. "
                f"Unpack {version.archive} into {root}, or set data.{version.name}.download = true."
            )
    return paths


class _Plain(pickle.Unpickler):
    """Makes NumPy arrays and Python's own values, and calls nothing else."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every name that is not needed to rebuild an array."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(path: Path, md5: str) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            came = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if came != md5:
                raise DataError(
                    f"{path} must have the published md5 {md5}; it has {came}. Delete it and download it again."
                )
            file.seek(0)
            content = _Plain(file, encoding="latin1").load()
    except (OSError, ValueError, EOFError, pickle.UnpicklingError, AttributeError, IndexError, TypeError) as error:
        raise DataError(f"{path} must hold arrays and labels only: {error}. Download it again.") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} must hold a table of arrays and labels; it holds a {type(content).__name__}.")
    return content


def _batch(
    version: Official, path: Path, md5: str
) -> tuple[UInt8[np.ndarray, "n side side 3"], Int64[np.ndarray, " n"], list[str]]:
    """Images, labels and file names of one file, in its own order."""
    content = _unpickle(path, md5)
    pixels, labels = content.get("data"), np.asarray(content.get(version.label_key, []))
    names = [str(name) for name in content.get("filenames", [])]
    row = 3 * SIDE * SIDE
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), row):
        came = (pixels.dtype, pixels.shape) if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(
            f"{path} must hold uint8 images of shape ({len(labels)}, {row}), one a label; it holds {came}. "
            "Download it again."
        )
    if len(names) != len(labels):
        raise DataError(
            f"{path} must hold the name of each of its {len(labels)} images; it holds {len(names)}. Download it again."
        )
    return pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels.astype(np.int64), names


def _part(
    version: Official, files: Sequence[tuple[Path, str]]
) -> tuple[UInt8[np.ndarray, "n side side 3"], Int64[np.ndarray, " n"]]:
    """The images and labels of these files together, by class and, within each, by name."""
    batches = [_batch(version, path, md5) for path, md5 in files]
    labels = np.concatenate([labels for _, labels, _ in batches])
    names = [name for _, _, names in batches for name in names]
    order = sorted(range(len(names)), key=lambda place: (labels[place], names[place]))
    return np.concatenate([pixels for pixels, _, _ in batches])[order], labels[order]


def read(version: Official, root: Path, size: int) -> dict[str, np.ndarray]:
    """Images, labels, classes and where the test images start, in the order that the top of this file says.

    Raises:
        DataError: a file is missing, has another md5, or does not hold what it should.
    """
    paths = _paths(version, root)
    batches = [(path, md5) for path, (_, md5) in zip(paths, version.files[:-1], strict=False)]
    parts = [_part(version, batches[: len(version.train)]), _part(version, batches[len(version.train) :])]
    classes = list(_unpickle(paths[-1], version.meta[1]).get(version.classes_key, []))
    labels = np.concatenate([part for _, part in parts])
    if not np.array_equal(np.unique(labels), np.arange(len(classes))):
        raise DataError(
            f"{version.name} in {root} must have images of each of its {len(classes)} classes. Download it again."
        )
    return _arrays(np.concatenate([part for part, _ in parts]), labels, classes, len(parts[0][1]), size)


def read_copy(listing: Listing, size: int) -> dict[str, np.ndarray]:
    """As `read`, of CIFAR-10 as an image folder, `train_count` of whose files are for training; with "published",
    whether its pixels are those of the published files.

    Raises:
        DataError: a file that is no whole image, or another number of classes.
    """
    if listing.classes != CIFAR10_CLASSES or listing.train_count is None:
        odd = sorted(set(listing.classes) ^ set(CIFAR10_CLASSES)) or ["train/ and test/ folders"]
        raise DataError(
            f"A copy of CIFAR-10 must have train/ and test/ with its ten classes; {listing.root} differs in "
            f"{', '.join(odd)}. Unpack it again."
        )
    pixels = decode_all(listing.files, SIDE, f"decoding {listing.root.name}")
    published = hashlib.sha256(pixels.data).hexdigest() == CIFAR10_PIXELS
    labels = np.array(listing.labels, np.int64)
    arrays = _arrays(pixels, labels, listing.classes, listing.train_count, size)
    return {**arrays, "published": np.array([published])}


def _arrays(
    pixels: UInt8[np.ndarray, "n side side 3"],
    labels: Int64[np.ndarray, " n"],
    classes: Sequence[str],
    test_start: int,
    size: int,
) -> dict[str, np.ndarray]:
    """A cache entry, its images in the size that is asked for."""
    if size != SIDE:
        pixels = np.stack([resize(Image.fromarray(image), size) for image in pixels])
    return {"images": pixels, "labels": labels, "classes": np.array(classes), "test_start": np.array([test_start])}
