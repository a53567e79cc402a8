"""What a data set is to the rest of the house: images, labels and three disjoint pools. Not where they came from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from fed_lorac.errors import DataError

__all__ = ["Dataset", "Images", "OwnImages", "checked"]


def checked(indices: Int64[np.ndarray, " m"], count: int, name: str) -> Int64[np.ndarray, " m"]:
    """The indices, if each names an image (a negative one would silently count from the end).

    Raises:
        DataError: an index below 0 or not below `count`.
    """
    indices = np.asarray(indices, np.int64)
    if indices.size and (indices.min() < 0 or indices.max() >= count):
        raise DataError(
            f"An index into {name} must lie in 0..{count - 1}; got {indices.min()}..{indices.max()}. "
            "Were the indices made for another data set?"
        )
    return indices


@dataclass(frozen=True, eq=False)
class Images:
    """What a data set of somebody else's gives: all its images and labels, and the names of its classes, by label.

    The first `train_count` are for training, which the cloud and the fleet share, and the rest for evaluation; None:
    all are shared between the three.

    `camera` names the camera that took each image, and "" those of the cloud: cameras then keep their own images, and
    of each the first `train_count` are to adapt on; None: the latest fifth of each camera's is evaluated. `time` puts
    each camera's images in order: numbers or datetime64; None: they are in order.
    """

    images: UInt8[np.ndarray, "n height width 3"]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    train_count: int | None = None
    camera: Sequence[str] | None = None
    time: Shaped[np.ndarray, " n"] | None = None


@dataclass(frozen=True, eq=False)
class OwnImages:
    """What one camera took, where a data set says so: indices, ascending, which is the order of time.

    `scene`: a number for each of `train`, the same for neighbours that are near copies of one another, as frames of a
    film are; None: none are.
    """

    camera: str
    train: Int64[np.ndarray, " n"]
    evaluation: Int64[np.ndarray, " m"]
    scene: Int64[np.ndarray, " n"] | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels, and who may use which: `cloud`, `fleet` and `evaluation` are disjoint indices into both.

    `images` is mapped from a file that all processes share, and read-only. `fingerprint` is a sha256 over images,
    labels and classes (and over who took which), the same wherever and however often the same pixels are loaded.
    `cameras`: what each took, where the data set knows cameras; together they are `fleet` and `evaluation`. Empty:
    images are assigned. `corruption_settings`: those of corruptions that have any, by name.
    """

    name: str
    images: UInt8[np.ndarray, "n height width 3"]
    labels: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    cloud: Int64[np.ndarray, " n_cloud"]
    fleet: Int64[np.ndarray, " n_fleet"]
    evaluation: Int64[np.ndarray, " n_evaluation"]
    fingerprint: str
    cameras: tuple[OwnImages, ...] = field(default=(), kw_only=True)
    corruption_settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict, kw_only=True)

    def clean(self, indices: Int64[np.ndarray, " m"]) -> UInt8[np.ndarray, "m height width 3"]:
        """A copy of these images as they are in fair weather.

        Raises:
            DataError: an index out of range.
        """
        return np.array(self.images[checked(indices, len(self.images), self.name)])

    def weather(
        self, indices: Int64[np.ndarray, " m"], corruption: str, severity: int, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "m height width 3"]:
        """A copy of these images under a corruption of severity 1 to 5, its randomness drawn from `rng`.

        Raises:
            DataError: an index out of range.
            ConfigError: an unknown corruption or severity.
        """
        from fed_lorac.data.corruptions import corrupt  # noqa: PLC0415  (clean images need no SciPy)

        own = self.corruption_settings.get(corruption, {})
        stormy: np.ndarray = corrupt(self.clean(indices), corruption, severity, rng, **own)
        return stormy

    def weather_made_by(self, corruption: str) -> str | None:
        """What, besides `fingerprint` and the stream, decides the pixels of `weather`: part of a cache key.

        None: they must not be kept, because nobody knows, or need not be, because they are on file already.
        """
        from fed_lorac.data.corruptions import corruption_fingerprint  # noqa: PLC0415

        return corruption_fingerprint(corruption, self.corruption_settings.get(corruption))

    def check_weathers(self, corruptions: Iterable[str], *, clear: bool = False) -> None:
        """Look, before a run starts, whether `weather` has all of these, and with `clear` whether `clean` has images.

        Raises:
            ConfigError: an unknown corruption, or one of somebody else's that keeps no contract.
            DataError: files are missing.
        """
        from fed_lorac.data.corruptions import check_corruption  # noqa: PLC0415

        for corruption in corruptions:
            check_corruption(corruption, self.images.shape[1:3], **self.corruption_settings.get(corruption, {}))
