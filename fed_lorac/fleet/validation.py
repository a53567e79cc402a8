"""Validation: what settings are tuned on, so that no table's images choose them. Knows indices and labels; not cameras.

A share of a camera's own training images is set apart: it is measured on these in place of its evaluation images, and
does not train on them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fed_lorac.data.dataset import OwnImages
from fed_lorac.data.splits import split_by_rank
from fed_lorac.errors import ConfigError
from fed_lorac.fleet.fleet import Indices

__all__ = ["Parted", "set_apart"]


class Parted(NamedTuple):
    """Of each camera its images to adapt on and to be measured on."""

    train: list[Indices]
    validation: list[Indices]


def set_apart(
    train: Sequence[Indices], labels: NDArray[np.int64], share: float, cameras: Sequence[OwnImages] = ()
) -> Parted:
    """Part each camera's training images: the last of each class, or where `cameras` took them, the latest of all.

    Nothing is drawn. Neighbours in time are alike, so a share taken here and there would be known from training; for
    the same reason no scene is on both sides, and the share is the nearest that whole scenes come to.

    Raises:
        ConfigError: a camera would have no image left on one of the two sides.
    """
    if cameras:
        parts = [_latest(own, share, camera.scene) for own, camera in zip(train, cameras, strict=False)]
    else:
        parts = [_last_of_each_class(own, labels, share) for own in train]
    for camera, (kept, apart) in enumerate(parts):
        if not len(kept) or not len(apart):
            raise ConfigError(
                f"A camera needs images to train on and to be measured on; of the {len(train[camera])} of camera "
                f"{camera} a share of {share:g} leaves {len(kept)} and {len(apart)}. Change fleet.validation_share, or "
                "give cameras more images."
            )
    return Parted([kept for kept, _ in parts], [apart for _, apart in parts])


def _latest(own: Indices, share: float, scene: Indices | None) -> tuple[Indices, Indices]:
    """The cut in time, moved to where a scene ends; `own` may be the latest of the scenes' images alone."""
    cut = len(own) - round(share * len(own))
    if scene is not None:
        between = np.flatnonzero(np.diff(scene[-len(own) :])) + 1
        cut = min(between.tolist(), key=lambda at: abs(at - cut), default=len(own))
    return own[:cut], own[cut:]


def _last_of_each_class(own: Indices, labels: NDArray[np.int64], share: float) -> tuple[Indices, Indices]:
    kept, apart = split_by_rank(labels[own], (1 - share, share))
    return own[kept], own[apart]
