"""Noise: what a sensor adds to each pixel on its own. Knows CIFAR-10-C's noise severities.

Every function: uint8 (batch, height, width, 3) in and out, severity 1 to 5, randomness from `rng` alone.
Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness", ICLR 2019, the constants for CIFAR-10-C.
"""

import numpy as np
from numpy.random import Generator

from fed_lorac.data.corruptions._pixels import Images, Levels, from_levels, to_levels

__all__ = ["gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"]

_GAUSSIAN_STD = (0.04, 0.06, 0.08, 0.09, 0.10)  # of full scale
_PHOTONS = (500, 250, 100, 75, 50)  # at full scale
_IMPULSE_SHARE = (0.01, 0.02, 0.03, 0.05, 0.07)  # of the values
_SPECKLE_STD = (0.06, 0.10, 0.12, 0.16, 0.20)  # of the value


def _normal(images: Images, std: float, rng: Generator) -> Levels:
    draws = rng.standard_normal(images.shape, dtype=np.float32)
    draws *= np.float32(std)
    return draws


def gaussian_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Normal noise of one spread everywhere: electronics in low light."""
    noise = _normal(images, 255 * _GAUSSIAN_STD[severity - 1], rng)
    noise += images
    return from_levels(noise)


def shot_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Poisson noise: light comes in photons."""
    photons = _PHOTONS[severity - 1]
    rates = np.arange(256) / 255 * photons
    counts = rng.poisson(rates[images])
    shades = np.clip(np.arange(counts.max(initial=0) + 1) / photons, 0, 1) * 255
    return np.asarray(shades.astype(np.uint8)[counts])


def impulse_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Salt and pepper: single values, each channel on its own, stuck at 0 or 255."""
    share = _IMPULSE_SHARE[severity - 1]
    draw = rng.random(images.shape, dtype=np.float32)
    salted = np.where(draw < share / 2, np.uint8(255), images)
    return np.where(draw >= 1 - share / 2, np.uint8(0), salted)


def speckle_noise(images: Images, severity: int, rng: Generator) -> Images:
    """Normal noise in proportion to the value itself."""
    noise = _normal(images, _SPECKLE_STD[severity - 1], rng)
    noise += 1
    return from_levels(noise * to_levels(images))
