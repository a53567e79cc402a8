"""Splashes of water: edges, distances and contrast as OpenCV computes them. Knows grey planes; not severities.

OpenCV is not needed for this: each step is written here from its documented formula, for many planes at once.
"""

import numpy as np
import scipy
from jaxtyping import Bool, Float32, Int32

from fed_lorac.data.corruptions._geometry import correlate3, neighbours

__all__ = ["canny", "chamfer", "equalize", "relief"]

Whole = Int32[np.ndarray, "batch height width"]
Mask = Bool[np.ndarray, "batch height width"]

_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=np.int32)
_SLOPE = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.int32)
_TAN_22_5 = 13573  # tan(22.5 degrees) in 15 binary places
_FARTHEST = 20.0  # pixels: distances are cut here


def _crests(dx: Whole, dy: Whole, size: Whole) -> Mask:
    """Where the gradient is greatest along its own direction, of four directions."""
    near = neighbours(size, "constant")
    flat, steep = np.abs(dx) * _TAN_22_5, np.abs(dy) << 15
    across = (size > near[..., 1, 0, :, :]) & (size >= near[..., 1, 2, :, :])
    upright = (size > near[..., 0, 1, :, :]) & (size >= near[..., 2, 1, :, :])
    falling = (size > near[..., 0, 0, :, :]) & (size > near[..., 2, 2, :, :])
    rising = (size > near[..., 0, 2, :, :]) & (size > near[..., 2, 0, :, :])
    slanted = np.where((dx ^ dy) < 0, rising, falling)
    return np.where(steep < flat, across, np.where(steep > flat + (np.abs(dx) << 16), upright, slanted))


def canny(planes: Whole, low: int, high: int) -> Mask:
    """Canny's edges: crests of the gradient |dx| + |dy| above `low` that hang together with one above `high`."""
    dx, dy = (correlate3(planes, kernel, "edge") for kernel in (_SOBEL, _SOBEL.T))
    size = np.abs(dx) + np.abs(dy)
    weak = (size > low) & _crests(dx, dy, size)
    touching = np.zeros((3, 3, 3), dtype=bool)
    touching[1] = True  # eight neighbours, all in the same plane
    labels, count = scipy.ndimage.label(weak, touching)
    kept = np.zeros(count + 1, dtype=bool)
    kept[labels[weak & (size > high)]] = True
    return np.asarray(kept[labels])


def _sweep(distance: Float32[np.ndarray, "height batch padded_width"]) -> None:
    """Carry distances down and to the right, in place: rows one after another, the whole batch at once."""
    width = distance.shape[2] - 4
    ramp = np.arange(width, dtype=np.float32)
    for y in range(2, len(distance)):
        row, above, higher = distance[y, :, 2:-2], distance[y - 1], distance[y - 2]
        best = np.minimum(row, above[:, 2:-2] + np.float32(1))
        for left, source, step in ((1, above, 1.4), (0, above, 2.1969), (1, higher, 2.1969)):
            right = 4 - left
            near = np.minimum(source[:, left : left + width], source[:, right : right + width])
            np.minimum(best, near + np.float32(step), out=best)
        row[...] = np.minimum.accumulate(best - ramp, axis=1) + ramp


def chamfer(edges: Mask) -> Float32[np.ndarray, "batch height width"]:
    """Each pixel's distance to its plane's nearest edge in steps of 1, 1.4 (diagonal) and 2.1969 (knight's move).

    OpenCV's `distanceTransform(DIST_L2, 5)`; 1e6 and more where a plane has no edge.
    """
    batch, height, width = edges.shape
    distance = np.full((height + 4, batch, width + 4), 1e6, dtype=np.float32)
    inside = distance[2:-2, :, 2:-2]
    inside[edges.transpose(1, 0, 2)] = 0
    _sweep(distance[:-2])
    _sweep(distance[::-1, :, ::-1][:-2])
    return inside.transpose(1, 0, 2)


def equalize(planes: Whole, levels: int) -> Whole:
    """Each plane's values 0..levels-1 spread over 0..255 by rank, its lowest to 0; a plane of one value stays so."""
    batch, pixels = len(planes), planes[0].size
    keys = planes + levels * np.arange(batch)[:, None, None]
    counts = np.bincount(keys.ravel(), minlength=batch * levels).reshape(batch, levels)
    below = counts.cumsum(axis=1)
    lowest = np.take_along_axis(counts, (counts > 0).argmax(axis=1)[:, None], axis=1)
    spread = np.rint((below - lowest) * (255 / np.maximum(pixels - lowest, 1)))
    table = np.where(lowest == pixels, np.arange(levels), np.maximum(spread, 0))
    return table.ravel()[keys].astype(np.int32)


def relief(liquid: Whole) -> Float32[np.ndarray, "batch height width"]:
    """How brightly a splash (grey levels 0..255) shines: lit from one side, darkest far from its rim; 0 to 255."""
    ones = np.ones((3, 3), dtype=np.float32)
    distance = np.minimum(chamfer(canny(liquid, 50, 150)), np.float32(_FARTHEST))
    depth = (correlate3(distance, ones, "reflect") / 9 + 1e-5).astype(np.int32)
    slope = correlate3(equalize(depth, int(_FARTHEST) + 1), _SLOPE, "reflect")
    return np.rint(correlate3(np.clip(slope, 0, 255), ones, "reflect") / 9)
