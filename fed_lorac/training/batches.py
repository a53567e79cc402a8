"""From stored images to a network's input: crops, normalisation, precision, and every camera's own batches, side by
side. Knows images, labels and random streams; not networks.

All images of a block are on the device while it trains, joined, so that a step's batches are cut out of them there in
one go. What is random is drawn camera by camera, each from its own stream, in the order it would be drawn in alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fed_lorac.runtime.normalization import CIFAR10, Normalization
from fed_lorac.runtime.precision import Precision

__all__ = [
    "AUGMENTS",
    "Augment",
    "Crops",
    "Feed",
    "augmented",
    "autocast",
    "cropped",
    "drawn_crops",
    "shuffled_batches",
    "to_input",
]

Augment = Literal[
    "reflect_flip", "reflect_flip_light", "reflect_flip_cutout_light", "crop_flip", "crop", "crop_flip_cutout", "none"
]
AUGMENTS: tuple[str, ...] = get_args(Augment)

_PADDING = 4
_HOLE = 17  # odd: a square around its centre
_LIGHT = 0.6, 1.4  # brightness and contrast are multiplied by between these, as in CoTTA (arXiv 2203.13591)


def to_input(
    images: UInt8[Tensor, "n h w c"], device: torch.device | str = "cpu", normalization: Normalization = CIFAR10
) -> Float[Tensor, "n c h w"]:
    """Stored images (N, H, W, 3), 0..255, to a normalised float32 batch (N, 3, H, W) in channels-last memory.

    Several cameras' images side by side, (N, H, W, cameras*3), become (N, cameras*3, H, W).
    """
    cameras, numbers = images.shape[-1] // 3, (normalization.mean, normalization.std)
    mean, std = (torch.tensor(values * cameras, device=device) * 255 for values in numbers)
    return images.to(device).float().sub_(mean).div_(std).permute(0, 3, 1, 2)


def autocast(precision: Precision, device: torch.device | str = "cpu") -> AbstractContextManager[object]:
    """The context a forward pass runs in.

    PyTorch's cache of weights in bf16 is off: it goes by which tensor a weight is, not by its values, so that a network
    whose weights are exchanged for a teacher's would compute with those before; and all threads share it.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False)


@dataclass(frozen=True)
class Crops:
    """What was drawn for the images of one batch: rows and columns of the padded image, where a hole is, and what
    brightness and contrast are multiplied by."""

    rows: Int64[Tensor, "n h"]
    cols: Int64[Tensor, "n w"]
    hole: Int64[Tensor, "n 2"] | None = None
    light: Float[Tensor, "n 2"] | None = None


def augmented(
    images: UInt8[Tensor, "n h w 3"],
    how: Augment,
    rng: np.random.Generator,
    normalization: Normalization = CIFAR10,
) -> UInt8[Tensor, "n h w 3"]:
    """A random crop out of the image padded by 4 pixels, and in the "flip" ones a mirrored half.

    "crop", "crop_flip": the padding is black, LoRA-C's recipe and torchvision's. "crop_flip_cutout": a square of 17
    pixels around a random centre is the mean's grey besides, as far as it is in the image (cutout, arXiv 1708.04552).
    "reflect_flip": the padding mirrors the image. Black borders raise the first batch norm's variance by a quarter, so
    statistics that are estimated afterwards, on whole images, do not fit a network that was trained on them.
    "reflect_flip_light": another brightness and contrast besides. "reflect_flip_cutout_light": both, and cutout.
    """
    crops = drawn_crops(len(images), images.shape[1], images.shape[2], how, rng)
    return cropped(images, how, crops, normalization)


def drawn_crops(count: int, height: int, width: int, how: Augment, rng: np.random.Generator) -> Crops | None:
    """The random part of `augmented` for `count` images; None where nothing is drawn."""
    if how == "none":
        return None
    top, left = torch.from_numpy(rng.integers(0, 2 * _PADDING + 1, (2, count)))
    rows = top[:, None] + torch.arange(height)
    cols = left[:, None] + torch.arange(width)
    if "flip" in how:
        mirror = torch.from_numpy(rng.random(count) < 0.5)
        cols = torch.where(mirror[:, None], cols.flip(1), cols)
    centre = [torch.from_numpy(rng.integers(0, side, count)) for side in (height, width)] if "cutout" in how else None
    light = torch.from_numpy(rng.uniform(*_LIGHT, (count, 2))).float() if "light" in how else None
    return Crops(rows, cols, None if centre is None else torch.stack(centre, 1), light)


def cropped(
    images: UInt8[Tensor, "n h w 3"], how: Augment, crops: Crops | None, normalization: Normalization = CIFAR10
) -> UInt8[Tensor, "n h w 3"]:
    """The rest of `augmented`: the crops cut out, on the images' device."""
    if crops is None:
        return images
    (n, height, width, _), device = images.shape, images.device
    rows, cols, each = crops.rows.to(device), crops.cols.to(device), torch.arange(n, device=device)[:, None, None]
    if how.startswith("reflect"):
        cut = images[each, _reflected(rows, height)[:, :, None], _reflected(cols, width)[:, None, :]]
    else:
        padded = torch.nn.functional.pad(images, (0, 0, _PADDING, _PADDING, _PADDING, _PADDING))
        cut = padded[each, rows[:, :, None], cols[:, None, :]]
    if crops.hole is not None:
        cut = _cut_out(cut, crops.hole.to(device), normalization)
    return cut if crops.light is None else _lit(cut, crops.light.to(device))


def _reflected(padded: Int64[Tensor, "n side"], side: int) -> Int64[Tensor, "n side"]:
    """Positions in an image padded by reflection to positions in the image itself."""
    inside = (padded - _PADDING).abs()
    return side - 1 - (side - 1 - inside).abs()


def _cut_out(
    images: UInt8[Tensor, "n h w 3"], centre: Int64[Tensor, "n 2"], normalization: Normalization
) -> UInt8[Tensor, "n h w 3"]:
    _, height, width, _ = images.shape
    near = [
        (torch.arange(side, device=images.device) - at[:, None]).abs() * 2 < _HOLE
        for side, at in ((height, centre[:, 0]), (width, centre[:, 1]))
    ]
    grey = torch.tensor([round(255 * mean) for mean in normalization.mean], dtype=torch.uint8, device=images.device)
    return torch.where((near[0][:, :, None] & near[1][:, None, :])[..., None], grey, images)


def _lit(images: UInt8[Tensor, "n h w 3"], light: Float[Tensor, "n 2"]) -> UInt8[Tensor, "n h w 3"]:
    """Every pixel times the image's brightness, and its distance from their mean times its contrast."""
    brightness, contrast = light.view(-1, 2, 1, 1, 1).unbind(1)
    bright = images.float() * brightness
    mean = bright.mean((1, 2, 3), keepdim=True)
    return mean.add((bright - mean) * contrast).round_().clamp_(0, 255).to(torch.uint8)


def shuffled_batches(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Index batches of one epoch over `count` images, each image once; the last batch may be smaller."""
    order = torch.from_numpy(rng.permutation(count))
    yield from order.split(batch_size)


class Feed:
    """Batches without end, in epochs of each camera's own; the last of an epoch may be smaller.

    Epochs are shuffled, each anew, or run through the images as they come.
    """

    def __init__(
        self,
        images: Sequence[UInt8[Tensor, "n h w 3"]],
        labels: Sequence[Int64[Tensor, " n"]],
        rngs: Sequence[np.random.Generator],
        *,
        batch_size: int,
        augment: Augment,
        device: torch.device,
        shuffled: bool = True,
        normalization: Normalization = CIFAR10,
    ) -> None:
        one, counts = len(images) == 1, [len(own) for own in labels]
        self._images = (images[0] if one else torch.cat(list(images))).to(device)
        self._labels = (labels[0] if one else torch.cat(list(labels))).to(device)
        self._first = [sum(counts[:camera]) for camera in range(len(counts))]
        self._orders = [_endless(count, batch_size, rng, shuffled) for count, rng in zip(counts, rngs, strict=True)]
        self._rngs, self._augment, self._normalization = rngs, augment, normalization

    @property
    def cameras(self) -> int:
        """How many cameras are fed."""
        return len(self._rngs)

    def drawn(self, camera: int) -> Int64[Tensor, " b"]:
        """Which of its images are the camera's next batch."""
        return next(self._orders[camera])

    def index(self, cameras: Sequence[int], chosen: Sequence[Int64[Tensor, " b"]]) -> Int64[Tensor, " cameras*b"]:
        """Where the cameras' chosen images are, equally many of each, on the device."""
        index = torch.cat([self._first[camera] + own for camera, own in zip(cameras, chosen, strict=True)])
        return index.to(self._images.device)

    def images(
        self, cameras: Sequence[int], index: Int64[Tensor, " cameras*b"], augment: Augment | None = None
    ) -> Float[Tensor, "b cameras*3 h w"]:
        """Images, augmented as these ones are to be (None: as all are) and normalised, channels-last."""
        how, (height, width), size = augment or self._augment, self._images.shape[1:3], len(index) // len(cameras)
        crops = _joined([drawn_crops(size, height, width, how, self._rngs[camera]) for camera in cameras])
        each = cropped(self._images[index], how, crops, self._normalization).unflatten(0, (len(cameras), -1))
        return to_input(each.permute(1, 2, 3, 0, 4).flatten(3), self._images.device, self._normalization)

    def labels(self, cameras: Sequence[int], index: Int64[Tensor, " cameras*b"]) -> Int64[Tensor, "b cameras"]:
        """Their labels."""
        return self._labels[index].view(len(cameras), -1).T


def _endless(count: int, batch_size: int, rng: np.random.Generator, shuffled: bool) -> Iterator[Tensor]:
    while True:
        yield from shuffled_batches(count, batch_size, rng) if shuffled else torch.arange(count).split(batch_size)


def _joined(crops: Sequence[Crops | None]) -> Crops | None:
    some = [one for one in crops if one is not None]
    if not some:
        return None
    holes = [one.hole for one in some if one.hole is not None]
    lights = [one.light for one in some if one.light is not None]
    return Crops(
        torch.cat([one.rows for one in some]),
        torch.cat([one.cols for one in some]),
        torch.cat(holes) if holes else None,
        torch.cat(lights) if lights else None,
    )
