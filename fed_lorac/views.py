"""What a camera sees: its images, in its weather and in clear air. Knows data and cameras; not models or rounds."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from fed_lorac.data.corruptions import frost_textures
from fed_lorac.data.datasets import Dataset
from fed_lorac.data.store import cached_arrays
from fed_lorac.fleet import Camera
from fed_lorac.seeds import stream

__all__ = ["View", "clear", "in_weather"]

# Raised when a corruption's pixels change, so that older cache entries are not taken for new ones.
_WEATHER_VERSION = 1


@dataclass(frozen=True, eq=False)
class View:
    """A camera's images (N, H, W, 3) to adapt on and to be measured on, with labels."""

    train: UInt8[Tensor, "n h w 3"]
    train_labels: Int64[Tensor, " n"]
    test: UInt8[Tensor, "m h w 3"]
    test_labels: Int64[Tensor, " m"]


def in_weather(data: Dataset, camera: Camera, seed: int) -> View:
    """The camera's images under its own corruption: drawn once from its stream, then mapped from the shared cache."""

    def build() -> dict[str, np.ndarray]:
        return {
            part: data.weather(indices, camera.corruption, camera.severity, stream(seed, "weather", camera.id, part))
            for part, indices in (("train", camera.train), ("test", camera.evaluation))
        }

    dealt = hashlib.sha256(camera.train.tobytes() + b"|" + camera.evaluation.tobytes()).hexdigest()
    texture = frost_textures() if camera.corruption == "frost" else ""
    key = f"weather {_WEATHER_VERSION} {data.fingerprint} {camera.corruption} {camera.severity} {texture} "
    arrays = cached_arrays(f"{key}{camera.id} {seed} {dealt}", build)
    return _view(data, camera, arrays["train"], arrays["test"])


def clear(data: Dataset, camera: Camera) -> View | None:
    """The same images uncorrupted; None where the data set has only corrupted ones."""
    if not len(data.images):
        return None
    return _view(data, camera, data.clean(camera.train), data.clean(camera.evaluation))


def _view(data: Dataset, camera: Camera, train: np.ndarray, test: np.ndarray) -> View:
    images = (torch.from_numpy(np.array(part)) for part in (train, test))
    labels = (torch.from_numpy(data.labels[part]) for part in (camera.train, camera.evaluation))
    (x, x_test), (y, y_test) = images, labels
    return View(x, y, x_test, y_test)
