"""What a camera sees: its images, in its weather and in clear air. Knows data and cameras; not models or rounds."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from fed_lorac.data.datasets import Dataset
from fed_lorac.data.store import cached_arrays
from fed_lorac.fleet.fleet import CLEAR, Camera, Weather
from fed_lorac.runtime.source import source_of
from fed_lorac.seeds import stream

__all__ = ["CameraData", "Stream", "as_tensor", "camera_data", "in_stream_order"]

Stream = Literal["iid", "correlated", "time"]


@dataclass(frozen=True, eq=False)
class CameraData:
    """A camera's images (N, H, W, 3) to adapt on and to be measured on, with labels.

    `labelled`: which of the labels to adapt on the camera itself has; None: all.
    """

    train: UInt8[Tensor, "n h w 3"]
    train_labels: Int64[Tensor, " n"]
    test: UInt8[Tensor, "m h w 3"]
    test_labels: Int64[Tensor, " m"]
    labelled: Bool[Tensor, " n"] | None = None

    def known_labels(self, unknown: int) -> Int64[Tensor, " n"]:
        """The labels to adapt on as the camera has them, `unknown` where it has none."""
        return self.train_labels if self.labelled is None else self.train_labels.where(self.labelled, unknown)


def camera_data(
    data: Dataset, camera: Camera, seed: int, weather: Weather | None = None, *, on_disk: bool = True
) -> CameraData:
    """The camera's images in a weather, its own where none is given: drawn once, then mapped from the shared cache.

    The same weather is the same pixels in whatever round. A corruption that somebody has replaced is drawn each time;
    with `on_disk` false, every one.
    Severity 0 is clear air; DataError where there is none.
    """
    weather = weather or Weather(camera.corruption, camera.severity)
    if weather.severity == CLEAR:
        return _view(data, camera, data.clean(camera.train), data.clean(camera.evaluation))

    def build() -> Mapping[str, np.ndarray]:
        return {
            part: data.weather(indices, weather.corruption, weather.severity, stream(seed, "weather", camera.id, part))
            for part, indices in (("train", camera.train), ("test", camera.evaluation))
        }

    made_by = data.weather_made_by(weather.corruption)
    if made_by is None or not on_disk:
        arrays = build()
    else:
        assigned = hashlib.sha256(camera.train.tobytes() + b"|" + camera.evaluation.tobytes()).hexdigest()
        code = source_of(__name__, "fed_lorac.data.dataset", "fed_lorac.seeds")
        key = f"weather over {data.name}; {weather.corruption} {weather.severity} camera {camera.id} seed {seed}; "
        arrays = cached_arrays(f"{key}{assigned} of {data.fingerprint}; {made_by}, code {code}", build)
    return _view(data, camera, arrays["train"], arrays["test"])


def in_stream_order(view: CameraData, rng: np.random.Generator, stream: Stream) -> CameraData:
    """The images to adapt on as they come, the latest last: shuffled, class by class, or as they were taken."""
    if stream == "time":
        return view
    order = rng.permutation(len(view.train))
    if stream == "correlated":
        labels = view.train_labels.numpy()[order]
        place = rng.permutation(labels.max() + 1)  # which class comes when
        order = order[np.argsort(place[labels], kind="stable")]
    labelled = None if view.labelled is None else view.labelled[order]
    return replace(view, train=view.train[order], train_labels=view.train_labels[order], labelled=labelled)


def _view(data: Dataset, camera: Camera, train: np.ndarray, test: np.ndarray) -> CameraData:
    images = (as_tensor(part) for part in (train, test))
    labels = (torch.from_numpy(data.labels[part]) for part in (camera.train, camera.evaluation))
    (x, x_test), (y, y_test) = images, labels
    return CameraData(x, y, x_test, y_test)


def as_tensor(images: np.ndarray) -> UInt8[Tensor, "n h w 3"]:
    """These images; a whole file's are mapped as it is, so that no process has them for itself."""
    if isinstance(images, np.memmap) and images.flags.c_contiguous and images.filename is not None:
        file, size = Path(images.filename), images.offset + images.nbytes
        with suppress(OSError, RuntimeError):  # gone: the cache was cleared
            if file.stat().st_size == size:  # a part has the offset of the whole
                # Not from the array, which holds its file open: so many cameras, so many files.
                whole = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8)
                return whole[images.offset :].view(images.shape)
    return torch.from_numpy(np.array(images))
