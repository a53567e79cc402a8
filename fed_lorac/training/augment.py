"""From stored images to a network's input. Knows pixels and random streams; not models or cameras."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fed_lorac.runtime.normalization import CIFAR10, Normalization

__all__ = [
    "AUGMENTS",
    "Augment",
    "Crops",
    "augmented",
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
