"""The data sets, by name. Knows where each looks for its files and who gets which image; not cameras or weather.

Where there are test files they are the evaluation pool, and the training files are shared between the cloud and the
fleet by rank within class. Where there are none, all images are shared between the three, again by rank.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fed_lorac import registry
from fed_lorac.data import cifar
from fed_lorac.data import cifar10c as cifar10c_files
from fed_lorac.data import digits as scans
from fed_lorac.data.camera_files import CameraFiles
from fed_lorac.data.dataset import Dataset, Images
from fed_lorac.data.decode import Resize, decode_all, decode_settings
from fed_lorac.data.image_folder import Listing, has_splits, list_images
from fed_lorac.data.own_cameras import EVAL_SHARE, in_camera_order, own_dataset, own_of
from fed_lorac.data.splits import check_shares, split_by_rank
from fed_lorac.data.store import Entry, cached
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.runtime.files import home_expanded
from fed_lorac.runtime.source import source_of

__all__ = ["Dataset", "Images", "Request", "data_root", "files_of", "load"]

SHARES = (0.5, 0.3, 0.2)  # cloud, fleet, evaluation, of a data set without test files


@dataclass(frozen=True)
class Request:
    """What `load` was asked for, checked and with its root resolved."""

    root: Path
    download: bool
    image_size: int
    cloud_share: float
    shares: tuple[float, float, float] | None
    cache_dir: Path | str | None
    clean: Dataset | None
    resize: Resize = "squeeze"
    cameras: int = 12
    eval_share: float = EVAL_SHARE
    cloud_cameras: tuple[str, ...] = ()


def data_root(root: Path | str) -> Path:
    """The root as an absolute path: a relative or empty one starts at $FED_LORAC_DATA, else at the current folder.

    Raises:
        DataError: its name is not UTF-8, as a run's config must be, which holds it.
    """
    found = (home_expanded(os.environ.get("FED_LORAC_DATA") or ".") / home_expanded(root)).absolute()
    try:
        str(found).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"The root of a data set must have a name in UTF-8, or no file could hold it; got {found}. "
            "Rename it, or make a link to it."
        ) from None
    return found


def load(
    name: str,
    root: Path | str = "",
    *,
    download: bool = False,
    image_size: int = 32,
    resize: Resize = "squeeze",
    cloud_share: float = 0.6,
    shares: tuple[float, float, float] | None = None,
    cache_dir: Path | str | None = None,
    clean: Dataset | None = None,
    cameras: int = 12,
    eval_share: float = EVAL_SHARE,
    cloud_cameras: tuple[str, ...] = (),
    settings: Mapping[str, object] | None = None,
) -> Dataset:
    """Open a data set, decoding it into the shared cache on first use; a second start opens no image file.

    Args:
        name: `cifar10`, `cifar100`, `folder`, `cameras`, `traffic-signs`, `digits` or `cifar10c`; or one of somebody
            else's.
        root: where its files are, see `data_root`; `digits` needs none.
        download: fetch CIFAR from its authors when it is not there.
        image_size: height and width in pixels, a multiple of 8 (CIFAR-10-C is 32 only).
        resize: whether files that are not square are squeezed, or cropped to their middle.
        cloud_share: of a data set with test files, the cloud's share of each class's training images (traffic signs:
            tracks).
        shares: of a data set without them, the shares of cloud, fleet and evaluation; by default 50, 30 and 20 %,
            and of CIFAR-10-C, which has nothing for the cloud, 0, 50 and 50 %.
        cache_dir: see `fed_lorac.data.store.cache_folder`.
        clean: for CIFAR-10-C without `_clean.npy`, the CIFAR-10 whose test images it was made from.
        cameras: how many the tracks of traffic signs are shared between.
        eval_share: of each of `cameras`' own cameras, the share of its images, the latest, that it is measured on.
        cloud_cameras: of `cameras`, those whose images the cloud has.
        settings: of somebody else's data set.

    Raises:
        ConfigError: an unknown name, or a size or share out of range.
        DataError: files that are missing, damaged or do not fit together.
    """
    opened = registry.DATASETS.load(name)
    if image_size < 8 or image_size % 8:
        raise ConfigError(f"image_size must be a multiple of 8 pixels; got {image_size}. The usual one is 32.")
    check_shares((cloud_share, 1 - cloud_share))
    check_shares(shares or SHARES)
    check_shares((eval_share, 1 - eval_share))
    ask = Request(
        root=data_root(root),
        download=download,
        image_size=image_size,
        resize=resize,
        cloud_share=cloud_share,
        shares=shares,
        cache_dir=cache_dir,
        clean=clean,
        cameras=cameras,
        eval_share=eval_share,
        cloud_cameras=cloud_cameras,
    )
    try:
        return _of_others(name, ask, settings or {}) if registry.DATASETS.is_outside(name) else opened(ask)
    except OSError as error:  # what no room below has a better word for: permissions, a loop of links, a lost disk
        raise DataError(
            f"The files of {name} must be readable; {error}. Check {ask.root} and its permissions."
        ) from error


def _of_others(name: str, ask: Request, settings: Mapping[str, object]) -> Dataset:
    """Somebody else's, read anew in each process; its pixels lie in the cache by what they are, shared by all."""
    came = registry.DATASETS.make(name, root=ask.root, image_size=ask.image_size, **settings)
    if isinstance(came, Dataset):
        return came
    arrays = _arrays(name, came, ask.image_size)
    if isinstance(came, Images) and came.camera is not None:
        arrays = in_camera_order(name, came, arrays)
    digest = hashlib.sha256()
    for part, array in arrays.items():
        digest.update(f"{part} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    code = source_of(__name__, "fed_lorac.data.own_cameras")
    entry = cached(f"images of {name}; {digest.hexdigest()}, code {code}", lambda: arrays, ask.cache_dir)
    return own_dataset(name, entry, *own_of(entry)) if "camera" in arrays else _dataset(name, entry, ask)


def _arrays(name: str, came: object, size: int) -> dict[str, np.ndarray]:
    """What `Images` has, as a cache entry; ConfigError where it is not what it should be."""
    if not isinstance(came, Images):
        raise registry.DATASETS.broken(name, f"it gives {type(came).__name__}")
    images, labels, classes = np.asarray(came.images), np.asarray(came.labels), np.array(came.classes, np.str_)
    if images.dtype != np.uint8 or images.shape != (len(labels), size, size, 3) or labels.shape != images.shape[:1]:
        what = f"{images.dtype} {images.shape} with labels {labels.shape}, data.image_size being {size}"
        raise registry.DATASETS.broken(
            name, f"images must be uint8 (N, {size}, {size}, 3) and labels (N,); it gives {what}"
        )
    if came.time is not None and came.camera is None:
        raise registry.DATASETS.broken(name, "time is of cameras' images; it gives time and no camera")
    if not np.issubdtype(labels.dtype, np.integer) or set(np.unique(labels).tolist()) - set(range(len(classes))):
        raise registry.DATASETS.broken(name, f"labels must be whole numbers below its {len(classes)} classes")
    arrays = {"images": images, "labels": labels.astype(np.int64), "classes": classes}
    return arrays if came.train_count is None else {**arrays, "test_start": np.array([came.train_count])}


def _official(version: cifar.Official, ask: Request) -> Dataset:
    if ask.download and not cifar.is_there(version, ask.root):
        cifar.download(version, ask.root)
    code = source_of("fed_lorac.data.cifar")
    key = (
        f"images of {version.name}, {ask.image_size} pixels a side; {ask.root}; {cifar.stamp(version, ask.root)}; "
        f"{decode_settings(ask.image_size)}, {code}"
    )
    return _dataset(
        version.name, cached(key, lambda: cifar.read(version, ask.root, ask.image_size), ask.cache_dir), ask
    )


def cifar100(ask: Request) -> Dataset:
    """CIFAR-100: 60,000 images of 100 classes, from the official files.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"
    """
    return _official(cifar.official("cifar100"), ask)


def cifar10(ask: Request) -> Dataset:
    """CIFAR-10: 60,000 images of ten classes.

    The official files where they are or may be fetched, else a copy of CIFAR-10 as an image folder.

    Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"
    """
    if ask.download or (ask.root / "cifar-10-batches-py").is_dir():
        return _official(cifar.official("cifar10"), ask)
    folder = ask.root / "cifar10" if (ask.root / "cifar10").is_dir() else ask.root
    if folder == ask.root and not (folder.is_dir() and has_splits(folder)):
        raise DataError(
            f"cifar10 must be in its root; {ask.root} has neither cifar-10-batches-py/ nor cifar10/, nor train/ and "
            "test/. Set data.cifar10.download = true to fetch it, or data.root or FED_LORAC_DATA to where it is."
        )
    listing = list_images(folder)
    code = source_of("fed_lorac.data.cifar", "fed_lorac.data.image_folder", "fed_lorac.data.class_names")
    key = f"images of cifar10, {files_of(listing, ask)}, {code}"
    entry = cached(key, lambda: cifar.read_copy(listing, ask.image_size), ask.cache_dir)
    return _dataset(_copy_name(entry), entry, ask)


def _copy_name(entry: Entry) -> str:
    """The name to record for an image folder of CIFAR-10: a copy that is not the published one says so."""
    if entry.arrays["published"][0]:
        return "cifar10"
    train = int(entry.arrays["test_start"][0])
    test = len(entry.arrays["labels"]) - train
    if (train, test) == (50_000, 10_000):
        return "cifar10 (a copy with other pixels than the published images)"
    return f"cifar10 (a copy of {train} + {test} of its 50000 + 10000 images)"


def folder(ask: Request) -> Dataset:
    """Images of your own: a folder for each class, with train/ and test/ above them or without."""
    return _dataset(f"folder ({ask.root.name})", _decoded(list_images(ask.root), ask), ask)


def digits(ask: Request) -> Dataset:
    """1,797 scanned digits, enlarged; they come with scikit-learn, so nothing is fetched.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository
    """
    key = f"images of digits, {ask.image_size} pixels a side; {scans.stamp(ask.image_size)}"
    entry = cached(key, lambda: scans.read(ask.image_size), ask.cache_dir)
    return _dataset("digits", entry, ask)


def cifar10c(ask: Request) -> Dataset:
    """CIFAR-10-C's own files: test images of CIFAR-10 in 19 kinds of ready-made weather and wear.

    Source: Hendrycks and Dietterich 2019, arXiv 1903.12261
    """
    if ask.image_size != cifar10c_files.SIDE:
        raise ConfigError(f"CIFAR-10-C's images are 32 x 32; got image_size = {ask.image_size}. Leave it at 32.")
    clean = ask.clean
    folder = cifar10c_files.find(ask.root)
    if clean is None and not os.path.lexists(folder / "_clean.npy") and (ask.root / "cifar-10-batches-py").is_dir():
        clean = _official(cifar.official("cifar10"), ask)
    return cifar10c_files.open_blocks(
        folder, shares=ask.shares or cifar10c_files.SHARES, clean=clean, cache_dir=ask.cache_dir
    )


def _decoded(listing: Listing, ask: Request) -> Entry:
    def build() -> dict[str, np.ndarray]:
        images = decode_all(listing.files, ask.image_size, f"decoding {listing.root.name}", ask.resize)
        arrays = {"images": images, "labels": np.array(listing.labels, np.int64), "classes": np.array(listing.classes)}
        return arrays if listing.train_count is None else {**arrays, "test_start": np.array([listing.train_count])}

    code = source_of(__name__, "fed_lorac.data.image_folder", "fed_lorac.data.class_names")
    return cached(f"images of {files_of(listing, ask)}, {code}", build, ask.cache_dir)


def files_of(listing: Listing | CameraFiles, ask: Request) -> str:
    """What, besides the code, decides the pixels of an image folder: part of a cache key."""
    pixels = decode_settings(ask.image_size, ask.resize)
    return f"{listing.root}, {ask.image_size} pixels a side; {len(listing.files)} files {listing.stamp}; {pixels}"


def _dataset(name: str, entry: Entry, ask: Request) -> Dataset:
    """Assign the images of a cache entry to cloud, fleet and evaluation."""
    arrays = entry.arrays
    labels, classes = np.array(arrays["labels"]), tuple(map(str, arrays["classes"]))
    if "test_start" in arrays:
        start = int(arrays["test_start"][0])
        cloud, fleet = split_by_rank(labels[:start], (ask.cloud_share, 1 - ask.cloud_share))
        evaluation = np.arange(start, len(labels))
        wanted = (ask.cloud_share, 1 - ask.cloud_share, 1.0)
    else:
        wanted = ask.shares or SHARES
        cloud, fleet, evaluation = split_by_rank(labels, wanted)
    for pool, indices, share in zip(("cloud", "fleet", "evaluation"), (cloud, fleet, evaluation), wanted, strict=True):
        lacking = sorted(set(range(len(classes))) - set(labels[indices].tolist()))
        if share > 0 and lacking:
            raise DataError(
                f"Every class must have an image in the {pool}'s pool; {name} has too few of {classes[lacking[0]]!r} "
                f"for a share of {share:.0%}. Add images, or change the shares."
            )
    for array in (labels, cloud, fleet, evaluation):
        array.flags.writeable = False
    fingerprint = hashlib.sha256(json.dumps([entry.sha256[part] for part in ("images", "labels", "classes")]).encode())
    return Dataset(name, arrays["images"], labels, classes, cloud, fleet, evaluation, fingerprint.hexdigest())
