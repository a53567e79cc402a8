"""The laws of images: a corruption keeps their shape and draws from its generator alone; a data set opens the same
twice."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fed_lorac.data.corruptions import CORRUPTIONS, corrupt
from fed_lorac.data.dataset import Images
from fed_lorac.data.datasets import Dataset, load
from fed_lorac.errors import ConfigError, DataError, one_line
from fed_lorac.registry import DATASETS
from fed_lorac.seeds import stream
from fed_lorac.testing.laws import told, under

__all__ = ["check_corruption", "check_dataset"]

_OURS = ("download", "resize", "cloud_share", "cameras", "eval_share", "cloud_cameras")  # settings of built-in ones


def check_corruption(corruption: str | Callable[..., np.ndarray], *, image_size: int = 32, **settings: object) -> None:
    """Hold a corruption to its laws, at every severity.

    Args:
        corruption: a name ("fog", "my_package.weather:drizzle") or the function itself,
            `(images uint8 (N, H, W, 3), severity, rng, **settings) -> images`.
        image_size: height and width, a multiple of 8.
        settings: its own.

    Raises:
        AssertionError: a law is broken; it says which, and what came.
    """

    def law(text: str, holds: object, came: object = "") -> None:
        under(told(corruption, text), holds, came)

    def stormy(severity: int, seed: int = 0) -> np.ndarray:
        rng, given = stream(seed, "check"), images.copy()
        if isinstance(corruption, str):
            found = corrupt(given, corruption, severity, rng, **settings)
        else:
            found = corruption(given, severity, rng, **settings)
        if corruption in CORRUPTIONS:  # one of somebody else's may work in place: it is given a copy
            law("the images that it is given must stay as they are", np.array_equal(given, images))
        return found

    waves = np.sin(np.arange(image_size) / 3)[:, None, None] + stream(1, "check").normal(0, 0.3, (5, image_size, 1, 3))
    images = np.clip(120 + 70 * np.broadcast_to(waves, (5, image_size, image_size, 3)), 0, 255).astype(np.uint8)
    for severity in (1, 2, 3, 4, 5):
        found = stormy(severity)
        kind = f"{getattr(found, 'dtype', type(found).__name__)} {getattr(found, 'shape', '')}"
        law(
            f"images of severity {severity} must be uint8 {images.shape}",
            isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == images.shape,
            kind,
        )
        law(f"severity {severity} must change the images", not np.array_equal(found, images))
        law("all randomness must come from `rng`: equal streams, equal images", np.array_equal(found, stormy(severity)))


def check_dataset(
    dataset: str | Callable[..., Images | Dataset], root: Path | str = "", *, image_size: int = 32, **settings: object
) -> None:
    """Hold a data set to its laws.

    Args:
        dataset: a name ("digits", "my_package.data:stripes") or the function itself,
            `(root, image_size, **settings) -> Images`.
        root: where its files are.
        image_size: pixels a side that are asked for.
        settings: its own.

    Raises:
        AssertionError: a law is broken; it says which, and what came.
    """

    def law(text: str, holds: object, came: object = "") -> None:
        under(told(dataset, text), holds, came)

    if not isinstance(dataset, str):
        dataset = f"{dataset.__module__}:{dataset.__qualname__}"
    law("there must be such a data set", DATASETS.find(dataset), dataset)
    own = {key: settings.pop(key) for key in _OURS if key in settings}
    with TemporaryDirectory() as cache:
        try:
            one, other = (
                load(dataset, root, image_size=image_size, cache_dir=cache, settings=settings, **own)  # type: ignore[arg-type]
                for _ in range(2)
            )
        except (ConfigError, DataError) as error:
            raise AssertionError(told(dataset, one_line(error))) from error
        law("opening it twice must give the same images, labels and classes", one.fingerprint == other.fingerprint)
        shape = (len(one.labels), image_size, image_size, 3)
        law(
            f"images must be uint8 {shape}",
            one.images.shape == shape and one.images.dtype == np.uint8,
            one.images.shape,
        )
        _check_pools(law, one)
        del one, other  # their files are mapped


def _check_pools(law: Callable[..., None], data: Dataset) -> None:
    pools = {"cloud": data.cloud, "fleet": data.fleet, "evaluation": data.evaluation}
    every = np.concatenate(list(pools.values()))
    law("cloud, fleet and evaluation must share no image", len(np.unique(every)) == len(every))
    labels = set(np.unique(data.labels).tolist())
    law("labels must be from 0 to below the number of classes", labels <= set(range(len(data.classes))), labels)
    law("names of classes must differ", len(set(data.classes)) == len(data.classes), data.classes)
    _check_cameras(law, data)
    for name, pool in pools.items():
        if data.cameras and (name != "cloud" or not len(pool)):
            continue  # cameras see what they see, and may go without a cloud
        law(f"the {name} must have images", len(pool))
        missing = sorted(set(range(len(data.classes))) - set(np.unique(data.labels[pool]).tolist()))
        law(f"the {name} must see every class", not missing, f"none of {[data.classes[k] for k in missing][:5]}")


def _check_cameras(law: Callable[..., None], data: Dataset) -> None:
    """Where cameras have images of their own."""
    names = [one.camera for one in data.cameras]
    law("names of cameras must differ", len(set(names)) == len(names), names)
    for name, pool in (("train", data.fleet), ("evaluation", data.evaluation)):
        whose = [getattr(one, name) for one in data.cameras]
        law(
            "cameras must have all images of the fleet and the evaluation between them, each image one camera",
            not whose or np.array_equal(np.sort(np.concatenate(whose)), pool),
        )
        for one, images in zip(data.cameras, whose, strict=True):
            law(f"every camera must have images to adapt on and to be measured on: {one.camera!r}", len(images))
            law("a camera's images must be in the order of time, by index", (np.diff(images) > 0).all(), one.camera)
