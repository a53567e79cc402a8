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

Augment = Literal["reflect_flip", "crop_flip", "crop", "crop_flip_cutout", "none"]
AUGMENTS: tuple[str, ...] = get_args(Augment)

_PADDING = 4
_HOLE = 17  # odd: a square around its centre


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
    """The context a forward pass runs in."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


@dataclass(frozen=True)
class Crops:
    """What was drawn for the images of one batch: rows and columns of the padded image, and where a hole is."""

    rows: Int64[Tensor, "n h"]
    cols: Int64[Tensor, "n w"]
    hole: Int64[Tensor, "n 2"] | None


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
    return Crops(rows, cols, None if centre is None else torch.stack(centre, 1))


def cropped(
    images: UInt8[Tensor, "n h w 3"], how: Augment, crops: Crops | None, normalization: Normalization = CIFAR10
) -> UInt8[Tensor, "n h w 3"]:
    """The rest of `augmented`: the crops cut out, on the images' device."""
    if crops is None:
        return images
    (n, height, width, _), device = images.shape, images.device
    rows, cols, each = crops.rows.to(device), crops.cols.to(device), torch.arange(n, device=device)[:, None, None]
    if how == "reflect_flip":
        return images[each, _reflected(rows, height)[:, :, None], _reflected(cols, width)[:, None, :]]
    padded = torch.nn.functional.pad(images, (0, 0, _PADDING, _PADDING, _PADDING, _PADDING))
    cut = padded[each, rows[:, :, None], cols[:, None, :]]
    return cut if crops.hole is None else _cut_out(cut, crops.hole.to(device), normalization)


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

    def drawn(self, camera: int) -> Int64[Tensor, " b"]:
        """Which of its images are the camera's next batch."""
        return next(self._orders[camera])

    def batch(
        self, cameras: Sequence[int], chosen: Sequence[Int64[Tensor, " b"]]
    ) -> tuple[Float[Tensor, "b cameras*3 h w"], Int64[Tensor, "b cameras"]]:
        """The cameras' chosen images, equally many, augmented and normalised, channels-last; and their labels."""
        height, width = self._images.shape[1:3]
        index = torch.cat([self._first[camera] + own for camera, own in zip(cameras, chosen, strict=True)])
        index = index.to(self._images.device)
        size, rngs = len(chosen[0]), [self._rngs[camera] for camera in cameras]
        crops = _joined([drawn_crops(size, height, width, self._augment, rng) for rng in rngs])
        each = cropped(self._images[index], self._augment, crops, self._normalization).unflatten(0, (len(cameras), -1))
        x = to_input(each.permute(1, 2, 3, 0, 4).flatten(3), self._images.device, self._normalization)
        return x, self._labels[index].view(len(cameras), -1).T


def _endless(count: int, batch_size: int, rng: np.random.Generator, shuffled: bool) -> Iterator[Tensor]:
    while True:
        yield from shuffled_batches(count, batch_size, rng) if shuffled else torch.arange(count).split(batch_size)


def _joined(crops: Sequence[Crops | None]) -> Crops | None:
    some = [one for one in crops if one is not None]
    if not some:
        return None
    holes = [one.hole for one in some if one.hole is not None]
    return Crops(
        torch.cat([one.rows for one in some]),
        torch.cat([one.cols for one in some]),
        torch.cat(holes) if holes else None,
    )
