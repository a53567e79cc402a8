"""Data sets whose cameras keep their own images. Knows who took what, in which order; not files, fleets or weather."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from fed_lorac import registry
from fed_lorac.data.dataset import Dataset, Images, OwnImages
from fed_lorac.data.store import Entry
from fed_lorac.errors import ConfigError, DataError

__all__ = ["EVAL_SHARE", "in_camera_order", "own_dataset", "own_images", "own_of"]

EVAL_SHARE = 0.2
_NAMED = 10  # cameras that an error names


def own_images(
    names: Sequence[str],
    camera: Int64[np.ndarray, " n"],
    test: Bool[np.ndarray, " n"],
    *,
    eval_share: float = EVAL_SHARE,
    cloud: Collection[str] = (),
) -> tuple[Int64[np.ndarray, " c"], tuple[OwnImages, ...]]:
    """The cloud's images and each camera's, whose images stand in the order of time.

    Args:
        names: of the cameras.
        camera: of each image its camera's place in `names`.
        test: which images are to be measured on; where none is, the latest `eval_share` of each camera's are, one at
            least.
        cloud: the cameras whose images the cloud has; their test images are nobody's.

    Raises:
        ConfigError: a cloud's camera that is none, or no camera left.
        DataError: a camera with nothing to adapt on, or nothing to be measured on.
    """
    if unknown := sorted(set(cloud) - set(names)):
        raise ConfigError(
            f"The cloud's cameras must be among the data set's; {_some(unknown)} "
            f"{'is' if len(unknown) == 1 else 'are'} not. There are {_some(names)}. "
            "Set data.cameras.cloud_cameras to some of them."
        )
    if set(cloud) >= set(names):
        raise ConfigError(
            f"The fleet must keep a camera; data.cameras.cloud_cameras gives the cloud all {len(names)}. "
            "Remove some of them from it."
        )
    split, given = test.any(), [np.flatnonzero(camera == k) for k in range(len(names))]
    own = []
    for name, images in zip(names, given, strict=True):
        if name not in cloud:
            end = len(images) - max(1, round(eval_share * len(images)))
            parts = (images[~test[images]], images[test[images]]) if split else (images[:end], images[end:])
            own.append(OwnImages(name, *parts))
    if lacking := [one.camera for one in own if not len(one.train) or not len(one.evaluation)]:
        raise DataError(
            f"Every camera must have an image to adapt on and another to be measured on; {_some(lacking)} lacks one. "
            f"Add images{' to train/ or test/' if split else ''}, or remove the camera."
        )
    mine = np.isin(camera, [k for k, name in enumerate(names) if name in cloud])
    return np.flatnonzero(mine & ~test), tuple(own)


def own_dataset(name: str, entry: Entry, cloud: Int64[np.ndarray, " c"], cameras: tuple[OwnImages, ...]) -> Dataset:
    """The data set of a cache entry, whose cameras keep what is theirs.

    Raises:
        DataError: the cloud has images, but not of every class.
    """
    labels, classes = np.array(entry.arrays["labels"]), tuple(map(str, entry.arrays["classes"]))
    lacking = [classes[k] for k in sorted(set(range(len(classes))) - set(labels[cloud].tolist()))]
    if len(cloud) and lacking:
        raise DataError(
            f"The cloud, which trains the base, must have images of every class; in {name} it has none of "
            f"{_some(lacking)}. Give it more."
        )
    fleet, evaluation = (
        np.sort(np.concatenate(part)) for part in zip(*((one.train, one.evaluation) for one in cameras), strict=True)
    )
    for array in (labels, cloud, fleet, evaluation, *(part for one in cameras for part in (one.train, one.evaluation))):
        array.flags.writeable = False
    said = [
        *(f"{part} {entry.sha256[part]}" for part in sorted(entry.sha256)),
        hashlib.sha256(cloud.tobytes()).hexdigest(),
    ]
    fingerprint = hashlib.sha256(json.dumps(said).encode()).hexdigest()
    return Dataset(
        name, entry.arrays["images"], labels, classes, cloud, fleet, evaluation, fingerprint, cameras=cameras
    )


def in_camera_order(name: str, came: Images, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of somebody else's data set camera by camera, each camera's in the order of time, and who took which.

    Raises:
        ConfigError: names or times that are not one an image, or times that cannot be ordered.
    """
    whose, count = np.asarray(came.camera), len(arrays["labels"])
    if whose.shape != (count,) or whose.dtype.kind != "U":
        what = f"{whose.dtype} {whose.shape} for {count} images"
        raise registry.DATASETS.broken(name, f'camera must name the camera of each image, or be ""; it gives {what}')
    time = np.arange(count) if came.time is None else np.asarray(came.time)
    if time.shape != (count,) or time.dtype.kind not in "iufM" or (time != time).any():  # noqa: PLR0124  (NaN, NaT)
        what = f"{time.dtype} {time.shape} for {count} images"
        raise registry.DATASETS.broken(name, f"time must be a number or datetime64 of each image; it gives {what}")
    cameras, camera = np.unique(whose, return_inverse=True)
    order = np.lexsort((time, camera))
    test = np.arange(count) >= (count if came.train_count is None else came.train_count)
    return {
        **{part: arrays[part][order] for part in ("images", "labels")},
        "classes": arrays["classes"],
        "camera": camera[order].astype(np.int64),
        "test": test[order],
        "cameras": cameras,
    }


def own_of(entry: Entry) -> tuple[Int64[np.ndarray, " c"], tuple[OwnImages, ...]]:
    """The cloud's images and each camera's, of an entry that `in_camera_order` made: "" is the cloud's camera.

    Raises:
        ConfigError, DataError: as `own_images`.
    """
    arrays, names = entry.arrays, tuple(map(str, entry.arrays["cameras"]))
    cloud = ("",) if "" in names else ()
    return own_images(names, np.array(arrays["camera"]), np.array(arrays["test"]), cloud=cloud)


def _some(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*map(repr, names[:_NAMED]), *more])
