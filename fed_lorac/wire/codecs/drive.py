"""DRIVE: one bit a value after a random rotation (arXiv 2105.08339). Knows one tensor's values; not names or frames.

    tensor = scale * blocks, signs                     a scale is a float32, signs are one bit each, then padding
    R x    = H D2 H D1 x,  H the normalised Walsh-Hadamard matrix, D1 and D2 random signs
    scale  = ||x||^2 / ||R x||_1,   decoded = scale * R^-1 sign(R x)

The flat tensor is cut into blocks of 64 to 65,536 values, each a power of two: as few bits as possible, so the last one
may be filled up with zeros, which are billed. The seed of D1 and D2 travels once a frame; tensors differ by number.

For each rotation ||decoded - x||^2 = (||x||^2 n / ||R x||_1^2 - 1) ||x||^2 exactly (less what falls on the zeros that
fill up a block); its mean over rotations is about (pi/2 - 1) ||x||^2 = 0.571 ||x||^2. Under a uniformly random rotation
E[decoded] = x; under Hadamard matrices it is biased, the more the fewer values carry x. That is why there are two of
them. Measured ||E[decoded] - x|| / ||x||, in blocks of 64, by one H and by two (tests/test_codec_drive.py):

    normal values                  0.011     below 0.005
    cubes of normal values         0.11      below 0.01
    two spikes, 1 and 0.9          0.90      0.09            (in 512: 0.90 and below 0.015)
"""

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from fed_lorac.seeds import stream
from fed_lorac.wire.layout import Slot, Values
from fed_lorac.wire.refusals import malformed

__all__ = ["SEED_BYTES", "blocks", "drive_bytes", "drive_seed", "pack_drive", "unpack_drive"]

Array = npt.NDArray[np.float64]

SEED_BYTES = 8
_SCALE_BITS = 32
_SMALLEST, _LARGEST = 64, 65_536
_TURNS = 2


@lru_cache(maxsize=4096)
def blocks(count: int) -> tuple[int, ...]:
    """The sizes of the blocks that hold `count` values, largest first: the cut with the fewest bits in all.

    Where two cuts have the same size it is the one with fewer blocks, as larger ones are less biased.
    """
    if count > 2 * _LARGEST:
        whole = count // _LARGEST - 1
        return (_LARGEST,) * whole + blocks(count - whole * _LARGEST)
    return _cut(count)


def _cut(count: int) -> tuple[int, ...]:
    if count <= 0:
        return ()
    above = max(_SMALLEST, 1 << (count - 1).bit_length())
    if above == _SMALLEST:
        return (above,)
    split = (above // 2, *_cut(count - above // 2))
    filled = above <= _LARGEST and above + _SCALE_BITS <= sum(split) + _SCALE_BITS * len(split)
    return (above,) if filled else split


def drive_bytes(slot: Slot) -> int:
    """Four bytes and `size` bits for each block."""
    return sum(_SCALE_BITS // 8 + size // 8 for size in blocks(slot.count))


def drive_seed(rng: Generator) -> bytes:
    """What a frame says once: the seed of its rotations."""
    return rng.bytes(SEED_BYTES)


def pack_drive(values: Values, slot: Slot) -> bytes:
    """The tensor's bytes; the rotation's seed is the frame's."""
    sizes = blocks(slot.count)
    filled = np.zeros(sum(sizes))
    filled[: slot.count] = values.reshape(-1)
    scales, bits = np.zeros(len(sizes)), np.zeros(filled.size, np.bool_)
    for block, (at, size, flips) in enumerate(_rotations(slot, sizes)):
        x = filled[at : at + size]
        rotated = _rotated(x, flips)
        norm = math.fsum(np.abs(rotated))
        scales[block] = np.float32(math.fsum(x * x) / norm) if norm else 0.0
        bits[at : at + size] = (rotated < 0) & (scales[block] > 0)
    return scales.astype("<f4").tobytes() + np.packbits(bits).tobytes()


def unpack_drive(data: memoryview, slot: Slot) -> Values:
    """The values in the tensor's shape.

    Raises:
        FrameError: a scale that no packer writes, or signs beside a scale of zero.
    """
    sizes = blocks(slot.count)
    scales = np.frombuffer(data[: 4 * len(sizes)], "<f4").astype(np.float64)
    bits = np.unpackbits(np.frombuffer(data[4 * len(sizes) :], np.uint8))
    if not np.isfinite(scales).all() or np.signbit(scales).any():
        raise malformed("a scale is negative, -0, NaN or infinite")
    filled = np.zeros(sum(sizes))
    for scale, (at, size, flips) in zip(scales, _rotations(slot, sizes), strict=True):
        negative = bits[at : at + size]
        if scale == 0 and negative.any():
            raise malformed("a block has a scale of zero and signs that are not")
        filled[at : at + size] = _rotated_back(scale * (1.0 - 2.0 * negative), flips)
    with np.errstate(over="ignore"):  # a forged scale: the frame is refused as not finite
        return filled[: slot.count].astype(np.float32).reshape(slot.shape)


def _rotations(slot: Slot, sizes: tuple[int, ...]) -> Iterator[tuple[int, int, Array]]:
    """(start, size, signs of D1 and D2) of each block; the raw bits of Philox are the same in every NumPy."""
    raw, at = stream(int.from_bytes(slot.setup, "little"), "rotation", slot.number).bit_generator, 0
    for size in sizes:
        words = np.asarray(raw.random_raw(_TURNS * size // 64), "<u8")  # type: ignore[attr-defined]
        yield at, size, 1.0 - 2.0 * np.unpackbits(words.view(np.uint8)).astype(np.float64).reshape(_TURNS, size)
        at += size


def _rotated(x: Array, flips: Array) -> Array:
    """R x."""
    for signs in flips:
        x = _hadamard(x * signs)
    return x


def _rotated_back(y: Array, flips: Array) -> Array:
    """R^-1 y: H and D are their own inverses."""
    for signs in flips[::-1]:
        y = _hadamard(y) * signs
    return y


def _hadamard(x: Array) -> Array:
    """H x, normalised: H of size a*b is H_a (x) H_b, and both work along long contiguous rows."""
    rows = 1 << (x.size.bit_length() - 1) // 2
    grid = _butterflies(x.reshape(rows, -1))
    return _butterflies(np.ascontiguousarray(grid.T)).T.reshape(-1) / math.sqrt(x.size)


def _butterflies(grid: Array) -> Array:
    """H along the first axis, not normalised."""
    grid, half = grid.copy(), 1
    while half < len(grid):
        pairs = grid.reshape(-1, 2, half, grid.shape[1])
        low, high = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
        pairs[:, 0], pairs[:, 1] = low, high
        half *= 2
    return grid
