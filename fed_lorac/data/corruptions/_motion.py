"""Motion blur as ImageMagick does it. Knows kernels, angles and pixels; not severities."""

import numpy as np
from jaxtyping import Float

from fed_lorac.data.corruptions._geometry import neighbours
from fed_lorac.data.corruptions._pixels import Planes

__all__ = ["motion_blur"]

_NEGLIGIBLE = 2e-5  # of a pixel's weight: 0.005 grey levels


def _kernel(radius: int, sigma: float) -> np.ndarray:
    """One half of a Gaussian over `2 * radius + 1` pixels, peak first; the far end is cut where it weighs nothing."""
    step = np.arange(2 * radius + 1)
    weights = np.exp(-(step**2) / (2 * sigma**2))
    weights /= weights.sum()
    return weights[weights > _NEGLIGIBLE].astype(np.float32)


def motion_blur(planes: Planes, radius: int, sigma: float, angle_deg: Float[np.ndarray, "batch"]) -> Planes:
    """Blur each image of (batch, channels, height, width) along its own direction; truncated to whole grey levels.

    `MotionBlurImage` of ImageMagick 6: the kernel's steps are rounded to whole pixels (half down), edges repeat
    the outermost pixel, and the sum is cut, not rounded, to a byte.
    """
    weights = _kernel(radius, sigma)
    reach = len(weights) - 1
    step, angle = np.arange(len(weights)), np.deg2rad(angle_deg)[:, None]
    dy = np.ceil(step * np.sin(angle) - 0.5).astype(np.intp) + reach
    dx = np.ceil(step * np.cos(angle) - 0.5).astype(np.intp) + reach
    views, image = neighbours(planes, "edge", reach), np.arange(len(planes))
    out = np.zeros_like(planes)
    for tap, weight in enumerate(weights):
        out += weight * views[image, :, dy[:, tap], dx[:, tap]]
    return np.floor(out + 1e-3)
