"""From stored images to a network's input. Knows pixels and random streams; not models or cameras."""

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

__all__ = ["AUGMENTS", "Augment", "augmented", "shuffled_batches", "to_input"]

Augment = Literal["reflect_flip", "crop_flip", "crop", "crop_flip_cutout", "none"]
AUGMENTS: tuple[str, ...] = get_args(Augment)

# CIFAR-10's channel means and deviations over its training images, in units of 0..1.
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_PADDING = 4
_HOLE = 17  # odd: a square around its centre


def to_input(images: UInt8[Tensor, "n h w 3"], device: torch.device | str = "cpu") -> Float[Tensor, "n 3 h w"]:
    """Stored images (N, H, W, 3), 0..255, to a normalised float32 batch (N, 3, H, W) in channels-last memory."""
    mean, std = (torch.tensor(v, device=device) * 255 for v in (_MEAN, _STD))
    return ((images.to(device).float() - mean) / std).permute(0, 3, 1, 2)


def augmented(images: UInt8[Tensor, "n h w 3"], how: Augment, rng: np.random.Generator) -> UInt8[Tensor, "n h w 3"]:
    """A random crop out of the image padded by 4 pixels, and in the "flip" ones a mirrored half.

    "crop", "crop_flip": the padding is black, LoRA-C's recipe and torchvision's. "crop_flip_cutout": a square of 17
    pixels around a random centre is grey besides, as far as it is in the image (cutout, arXiv 1708.04552).
    "reflect_flip": the padding mirrors the image. Black borders raise the first batch norm's variance by a quarter, so
    statistics that are estimated afterwards, on whole images, do not fit a network that was trained on them.
    """
    if how == "none":
        return images
    n, height, width, _ = images.shape
    top, left = torch.from_numpy(rng.integers(0, 2 * _PADDING + 1, (2, n)))
    rows = top[:, None] + torch.arange(height)
    cols = left[:, None] + torch.arange(width)
    if "flip" in how:
        mirror = torch.from_numpy(rng.random(n) < 0.5)
        cols = torch.where(mirror[:, None], cols.flip(1), cols)
    each = torch.arange(n)[:, None, None]
    if how == "reflect_flip":
        return images[each, _reflected(rows, height)[:, :, None], _reflected(cols, width)[:, None, :]]
    padded = torch.nn.functional.pad(images, (0, 0, _PADDING, _PADDING, _PADDING, _PADDING))
    cropped = padded[each, rows[:, :, None], cols[:, None, :]]
    return _cut_out(cropped, rng) if how == "crop_flip_cutout" else cropped


def _reflected(padded: Int64[Tensor, "n side"], side: int) -> Int64[Tensor, "n side"]:
    """Positions in an image padded by reflection to positions in the image itself."""
    inside = (padded - _PADDING).abs()
    return side - 1 - (side - 1 - inside).abs()


def _cut_out(images: UInt8[Tensor, "n h w 3"], rng: np.random.Generator) -> UInt8[Tensor, "n h w 3"]:
    n, height, width, _ = images.shape
    row, col = (torch.from_numpy(rng.integers(0, side, n)) for side in (height, width))
    in_rows = (torch.arange(height) - row[:, None]).abs() * 2 < _HOLE
    in_cols = (torch.arange(width) - col[:, None]).abs() * 2 < _HOLE
    grey = torch.tensor([round(255 * mean) for mean in _MEAN], dtype=torch.uint8)
    return torch.where((in_rows[:, :, None] & in_cols[:, None, :])[..., None], grey, images)


def shuffled_batches(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """Index batches of one epoch over `count` images, each image once; the last batch may be smaller."""
    order = torch.from_numpy(rng.permutation(count))
    yield from order.split(batch_size)
