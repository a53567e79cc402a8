"""Plasma clouds by diamond-square. Knows heights on a torus; not fog."""

import numpy as np

from fed_lorac.data.corruptions._pixels import Planes

__all__ = ["plasma"]


def _around(first: np.ndarray, first_shift: int, second: np.ndarray, second_shift: int) -> np.ndarray:
    """The sum of a point's four neighbours: two of `first` one above the other, two of `second` side by side."""
    return np.asarray(first + np.roll(first, first_shift, axis=1) + second + np.roll(second, second_shift, axis=2))


def plasma(count: int, size: int, decay: float, rng: np.random.Generator) -> Planes:
    """`count` independent fractal height maps of `size` x `size` (a power of two), each stretched to 0..1.

    Diamond-square on a torus: a new point is the mean of its four neighbours plus a uniform offset. With `wobble`
    starting at 100 and divided by `decay` at each halving of the step, the offset's bound is wobble squared, as in
    the code that made CIFAR-10-C.
    """
    heights = np.zeros((count, size, size), dtype=np.float32)
    step, wobble = size, 100.0
    while step >= 2:
        half, bound = step // 2, wobble**2
        corners = heights[:, ::step, ::step]
        shape = corners.shape

        def moved(total: np.ndarray, shape: tuple[int, ...] = shape, bound: float = bound) -> np.ndarray:
            offset = rng.random(shape, dtype=np.float32)
            return total / 4 + np.float32(bound) * (2 * offset - 1)

        square = corners + np.roll(corners, -1, axis=1)
        heights[:, half::step, half::step] = moved(square + np.roll(square, -1, axis=2))
        centres = heights[:, half::step, half::step]
        heights[:, ::step, half::step] = moved(_around(centres, 1, corners, -1))
        heights[:, half::step, ::step] = moved(_around(corners, -1, centres, 1))
        step, wobble = half, wobble / decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return np.asarray(heights / heights.max(axis=(1, 2), keepdims=True))
