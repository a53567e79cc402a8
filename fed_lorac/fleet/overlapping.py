"""Cameras that share images: each draws its own from the pools, and is made when it is asked for. Knows pools, labels
and streams; not settings, rounds or tensors.

So a fleet can be larger than its images, and takes no more room than the cameras that were asked for lately. Two that
have an image in common see it each in its own weather, with noise of its own. What a camera draws depends on the seed
and its number alone: a fleet of more cameras has the same first ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import NDArray

from fed_lorac.errors import ConfigError
from fed_lorac.fleet.fleet import Camera, Indices
from fed_lorac.seeds import stream

__all__ = ["CamerasOnDemand", "OverlappingPool"]

_KEPT = 4096  # cameras: some megabytes
_LEAST = 1e-300  # a class that a camera never sees is drawn from where all others are used up


class CamerasOnDemand(Sequence[Camera]):
    """A fleet's cameras, of which only those that were asked for lately are in memory."""

    def __init__(self, count: int, make: Callable[[int], Camera]) -> None:
        self._numbers, self._made = range(count), lru_cache(maxsize=_KEPT)(make)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def made(self) -> int:
        """How many were made so far."""
        return self._made.cache_info().misses

    @overload
    def __getitem__(self, camera: int) -> Camera: ...

    @overload
    def __getitem__(self, camera: slice) -> Sequence[Camera]: ...

    def __getitem__(self, camera: int | slice) -> Camera | Sequence[Camera]:
        if isinstance(camera, slice):
            return [self._made(number) for number in self._numbers[camera]]
        return self._made(self._numbers[camera])


@dataclass(frozen=True, eq=False)
class OverlappingPool:
    """A pool of images, of which each camera draws `each`, none of them twice.

    `name` is its stream's, `key` the setting that `each` is, `where` says which pool it is.

    Raises:
        ConfigError: a camera would need more images than there are.
    """

    images: Indices
    each: int
    seed: int
    name: str
    key: str
    where: str

    def __post_init__(self) -> None:
        if self.each > len(self.images):
            raise ConfigError(
                f"A camera has no image twice, though others may have it too; got {self.key} = {self.each}, and the "
                f"{self.where} holds {len(self.images)}. Set {self.key} to {len(self.images)} or fewer."
            )

    def drawn(self, camera: int) -> Indices:
        """The camera's images, ascending: each set of so many is as likely as any other."""
        rng = stream(self.seed, "fleet", self.name, camera)
        return np.sort(rng.choice(self.images, self.each, replace=False, shuffle=False))

    def skewed(self, camera: int, labels: NDArray[np.int64], alpha: float) -> Indices:
        """The same with class shares of the camera's own, from a symmetric Dirichlet distribution: an image is drawn
        with its class's share over the number of images in the class. Where a class has too few, others stand in.

        Args:
            camera: its number.
            labels: the class of each image of the data set.
            alpha: the concentration, above 0.

        Source: shares by camera, Hsu et al. 2019, arXiv 1909.06335, section 3; draws in one pass, Efraimidis and
        Spirakis 2006, doi 10.1016/j.ipl.2005.11.003
        """
        rng, own = stream(self.seed, "fleet", "dirichlet", camera), labels[self.images]
        classes, place, count = np.unique(own, return_inverse=True, return_counts=True)
        share = np.maximum(rng.dirichlet(np.full(len(classes), alpha)), _LEAST) / count
        waits = rng.exponential(size=len(own)) / share[place]
        return np.sort(self.images[np.argpartition(waits, self.each - 1)[: self.each]])
