"""Which images of which cameras have labels, where not all do. Knows cameras by number and counts; not tensors.

More labels are those of fewer and others besides: raising the share takes none away.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fed_lorac.seeds import stream

__all__ = ["Labelled"]


@dataclass(frozen=True)
class Labelled:
    """A share of each camera's images, or all images of a share of the cameras; at least one of them."""

    share: float
    whose: Literal["images", "cameras"]
    cameras: int
    seed: int

    def of(self, camera: int, images: int) -> NDArray[np.bool_]:
        """Which of a camera's images, in the order in which they were dealt."""
        if self.whose == "cameras":
            return np.full(images, _whose(self.share, self.cameras, self.seed)[camera])
        return _first(self.share, stream(self.seed, "labelled", camera).permutation(images))


@lru_cache(maxsize=2)
def _whose(share: float, cameras: int, seed: int) -> NDArray[np.bool_]:
    """Which cameras have labels; kept, as each camera asks."""
    return _first(share, stream(seed, "labelled").permutation(cameras))


def _first(share: float, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Those whose place is among the first of this share."""
    return places < max(1, round(share * len(places)))
