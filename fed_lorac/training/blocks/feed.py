"""What a block's networks are fed: every camera's own batches, side by side. Knows images, labels and streams; not
networks.

All images are on the device for the turn, joined, so that a step's batches are cut out of them there in one go. What is
random is drawn camera by camera, each from its own stream, in the order it would be drawn in alone.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fed_lorac.runtime.normalization import CIFAR10, Normalization
from fed_lorac.training.augment import Augment, Crops, cropped, drawn_crops, shuffled_batches, to_input

__all__ = ["Feed"]


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
