"""Geometry: blurring, zooming and moving pixels, many images at once. Knows arrays; not corruptions or severities.

Whatever is linear and separable is a pair of small matrices, one for the rows and one for the columns, so that a
whole batch costs two matrix products.
"""

from functools import cache

import numpy as np
import scipy
from jaxtyping import Float32, Int

from fed_lorac.data.corruptions._pixels import Planes

__all__ = ["bilinear", "blur", "correlate3", "filter_operators", "neighbours", "separable", "zoom_operator"]

Operator = Float32[np.ndarray, "size size"]


def separable(planes: Planes, rows: Operator, columns: Operator) -> Planes:
    """`rows @ plane @ columns.T` for every plane."""
    size = planes.shape[-1]
    wide = (planes.reshape(-1, size) @ columns.T).reshape(planes.shape)
    return np.asarray(np.matmul(rows, wide))


@cache
def _gaussian_operator(size: int, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> Operator:
    """The matrix of SciPy's `gaussian_filter1d` on `size` pixels; the identity where sigma is 0."""
    eye = np.eye(size)
    if sigma < 1e-15:
        return eye.astype(np.float32)
    blurred = scipy.ndimage.gaussian_filter1d(eye, sigma, axis=0, mode=mode, truncate=truncate)
    return np.asarray(blurred, dtype=np.float32)


def blur(planes: Planes, sigma: float, mode: str = "nearest", truncate: float = 4.0) -> Planes:
    """Gaussian blur of every plane, sigma in pixels."""
    height, width = planes.shape[-2:]
    rows = _gaussian_operator(height, sigma, mode, truncate)
    return separable(planes, rows, _gaussian_operator(width, sigma, mode, truncate))


@cache
def zoom_operator(size: int, factor: float) -> Operator:
    """The matrix that crops the middle of a line of `size` pixels and stretches it by `factor`, linearly, to `size`.

    As in CIFAR-10-C: the crop is rounded up, the stretched line (SciPy's `zoom`, order 1) is trimmed to its middle.
    """
    kept = int(np.ceil(size / factor))
    start = (size - kept) // 2
    stretched = scipy.ndimage.zoom(np.eye(size)[start : start + kept], (factor, 1), order=1)
    trim = (len(stretched) - size) // 2
    return np.asarray(stretched[trim : trim + size], dtype=np.float32)


def filter_operators(kernel: Float32[np.ndarray, "k k"], height: int, width: int) -> list[tuple[Operator, Operator]]:
    """Pairs of matrices whose separable products add up to correlation with `kernel`, edges mirrored (d c b|a b c d).

    The pairs are the kernel's singular vectors: as many as its rank.
    """
    left, values, right = np.linalg.svd(np.asarray(kernel, dtype=np.float64))
    pairs = []
    for value, u, v in zip(values, left.T, right, strict=True):
        if value > 1e-9 * values[0]:
            rows = scipy.ndimage.correlate1d(np.eye(height), u * value, axis=0, mode="mirror")
            columns = scipy.ndimage.correlate1d(np.eye(width), v, axis=0, mode="mirror")
            pairs.append((rows.astype(np.float32), columns.astype(np.float32)))
    return pairs


def neighbours(planes: np.ndarray, mode: str, reach: int = 1) -> np.ndarray:
    """Views of every plane moved by up to `reach` pixels: `[..., dy, dx, :, :]`, `[..., reach, reach, :, :]` unmoved.

    `mode` is NumPy's padding mode for what comes in over the edge.
    """
    height, width = planes.shape[-2:]
    pads = [(0, 0)] * (planes.ndim - 2) + [(reach, reach)] * 2
    padded = np.pad(planes, pads, mode=mode)  # type: ignore[call-overload]
    return np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(-2, -1))  # type: ignore[no-any-return]


def correlate3(planes: np.ndarray, kernel: np.ndarray, mode: str) -> np.ndarray:
    """Correlation of every plane with a 3 x 3 kernel, in the kernel's dtype."""
    views = neighbours(planes, mode)
    out = np.zeros(planes.shape, dtype=kernel.dtype)
    for dy, dx in np.argwhere(kernel):
        out += kernel[dy, dx] * views[..., dy, dx, :, :]
    return out


@cache
def _fold_table(size: int, mode: str) -> Int[np.ndarray, "range"]:
    """Where the pixel indices -2*size .. 3*size - 1 come to lie when a line of `size` pixels is mirrored at its ends.

    `mode` is NumPy's: "reflect" (d c b|a b c d|c b a) or "symmetric" (c b a|a b c d|d c b).
    """
    return np.pad(np.arange(size), 2 * size, mode=mode)  # type: ignore[call-overload, no-any-return]


def bilinear(
    levels: Float32[np.ndarray, "batch height width channels"],
    y: Float32[np.ndarray, "batch height width"],
    x: Float32[np.ndarray, "batch height width"],
    mode: str,
) -> Float32[np.ndarray, "batch height width channels"]:
    """Every image read at its own places (y, x), in pixels, linearly interpolated, mirrored at the edges by `mode`."""
    batch, height, width, channels = levels.shape
    top, left = np.floor(y), np.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    flat = levels.reshape(-1, channels)
    base = (np.arange(batch) * height * width)[:, None, None]
    i, j = top.astype(np.intp) + 2 * height, left.astype(np.intp) + 2 * width
    rows = [base + width * np.take(_fold_table(height, mode), i + step, mode="clip") for step in (0, 1)]
    columns = [np.take(_fold_table(width, mode), j + step, mode="clip") for step in (0, 1)]
    upper, lower = (_mix(np.take(flat, r + columns[0], 0), np.take(flat, r + columns[1], 0), right) for r in rows)
    return _mix(upper, lower, down)


def _mix(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    second -= first
    second *= share
    second += first
    return second
