"""What a fleet needs of a data set: labels, and pools of images that share none. Knows indices and classes; not
weather, never pixels."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fed_lorac.data.dataset import OwnImages
from fed_lorac.errors import DataError
from fed_lorac.fleet.fleet import Indices

__all__ = ["ImagePools", "check_disjoint", "label_mix"]


class ImagePools(Protocol):
    """What the fleet needs of a data set: labels and two disjoint pools of image indices."""

    @property
    def name(self) -> str:
        """As recorded, for messages."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class of every image, shape (N,)."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, by label."""

    @property
    def cameras(self) -> Sequence[OwnImages]:
        """What each camera took, where the data set says so; empty: images are assigned."""

    @property
    def fleet(self) -> Indices:
        """Images to adapt on, shape (n,)."""

    @property
    def evaluation(self) -> Indices:
        """Images to be measured on, shape (m,)."""


def check_disjoint(data: ImagePools) -> None:
    """Raise `DataError` where an image is in both pools, or twice in one."""
    pools = np.concatenate([data.fleet, data.evaluation])
    if twice := len(pools) - len(np.unique(pools)):
        raise DataError(
            f"An image is adapted on or evaluated, once; {data.name} holds {twice} of its fleet's and evaluation's "
            f"{len(pools)} indices twice. Fix the data set's split."
        )


def label_mix(data: ImagePools, indices: Indices) -> dict[str, float]:
    """Each class's share of these images, 0 to 1."""
    counts = np.bincount(data.labels[indices], minlength=len(data.classes))
    return {name: float(count / len(indices)) for name, count in zip(data.classes, counts, strict=True)}
