"""Blur: out of focus, through glass, in motion. Knows CIFAR-10-C's blur severities (in pixels, at any image size).

Every function: uint8 (batch, height, width, 3) in and out, severity 1 to 5, randomness from `rng` alone.
Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness", ICLR 2019, the constants for CIFAR-10-C.
"""

from collections import Counter
from functools import cache

import numpy as np
import scipy
from numpy.random import Generator

from fed_lorac.data.corruptions import _geometry as geometry
from fed_lorac.data.corruptions._motion import motion_blur as blur_along
from fed_lorac.data.corruptions._pixels import Images, from_planes, to_planes

__all__ = ["defocus_blur", "gaussian_blur", "glass_blur", "motion_blur", "zoom_blur"]

_GAUSSIAN_SIGMA = (0.4, 0.6, 0.7, 0.8, 1.0)
_GLASS = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))  # sigma, rounds of displacement
_DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))  # the disk's radius, sigma of its rim
_MOTION = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))  # radius, sigma
_MOTION_ANGLE_DEG = 45.0  # either way from horizontal
_ZOOM_END = (1.06, 1.11, 1.16, 1.21, 1.26)  # zoom factors from 1 up to here, in steps of 0.01
_DISK_REACH = 8


def gaussian_blur(images: Images, severity: int, rng: Generator) -> Images:
    """A Gaussian blur; draws nothing."""
    return from_planes(geometry.blur(to_planes(images), _GAUSSIAN_SIGMA[severity - 1]))


def glass_blur(images: Images, severity: int, rng: Generator) -> Images:
    """Blur, move pixels by up to one place, blur again: frosted glass.

    In the code that made CIFAR-10-C, what reads like a swap of two pixels copies instead (both sides are views of one
    array), from the same place or from above or the left; and as it runs from the last pixel to the first, each
    source is still untouched when it is read. So one round is one gather, in any order: the first two rows and
    columns stay.
    """
    sigma, rounds = _GLASS[severity - 1]
    glass = from_planes(geometry.blur(to_planes(images), sigma))
    batch, height, width, _ = images.shape
    image, y, x = np.ogrid[:batch, 2:height, 2:width]
    for _ in range(rounds):
        dy, dx = rng.integers(0, 2, size=(2, batch, height - 2, width - 2), dtype=np.uint8)
        glass[:, 2:, 2:] = glass[image, y - dy, x - dx]
    return from_planes(geometry.blur(to_planes(glass), sigma))


def _disk(radius: float, rim_sigma: float) -> np.ndarray:
    """A disk of `radius` pixels, smoothed by a 3 x 3 Gaussian, summing to 1."""
    line = np.arange(-_DISK_REACH, _DISK_REACH + 1)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float64)
    rim = np.exp(-(np.arange(-1, 2) ** 2) / (2 * rim_sigma**2))
    rim /= rim.sum()
    return np.asarray(scipy.ndimage.correlate(disk / disk.sum(), np.outer(rim, rim), mode="mirror"))


def defocus_blur(images: Images, severity: int, rng: Generator) -> Images:
    """Each point becomes a disk: a lens out of focus; draws nothing."""
    planes = to_planes(images)
    pairs = geometry.filter_operators(_disk(*_DEFOCUS[severity - 1]), *planes.shape[-2:])
    out = np.zeros_like(planes)
    for rows, columns in pairs:
        out += geometry.separable(planes, rows, columns)
    return from_planes(out)


def motion_blur(images: Images, severity: int, rng: Generator) -> Images:
    """Smeared along a line within 45 degrees of horizontal: a camera in motion."""
    radius, sigma = _MOTION[severity - 1]
    angle_deg = rng.uniform(-_MOTION_ANGLE_DEG, _MOTION_ANGLE_DEG, len(images))
    return from_planes(blur_along(to_planes(images), radius, sigma, angle_deg))


@cache
def _zooms(end: float, height: int, width: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """How often each pair of zoom matrices occurs: on few pixels, neighbouring factors give the same one."""
    factors = [float(factor) for factor in np.arange(1, end, 0.01)]
    pairs = [(geometry.zoom_operator(height, factor), geometry.zoom_operator(width, factor)) for factor in factors]
    keys = [(rows.tobytes(), columns.tobytes()) for rows, columns in pairs]
    found = dict(zip(keys, pairs, strict=True))
    return [(times, *found[key]) for key, times in Counter(keys).items()]


def zoom_blur(images: Images, severity: int, rng: Generator) -> Images:
    """The mean of the image and of a row of ever closer views; draws nothing."""
    planes = to_planes(images)
    out, views = planes.copy(), 1
    for times, rows, columns in _zooms(_ZOOM_END[severity - 1], *planes.shape[-2:]):
        out += times * geometry.separable(planes, rows, columns)
        views += times
    return from_planes(out / views)
