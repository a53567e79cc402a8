"""Number formats of fewer bits: 16 as floats, 8, 4 or 2 by stochastic rounding. Knows one tensor's values and how they
group; not names or frames. Of the latter two:

    tensor = zero * groups, step * groups, codes       zero and step are bf16; a code is 8, 4 or 2 bits; then padding
    value  = zero + step * code                        code in 0 .. L, L = 255, 15 or 3

A group is a rank component: a row of A, a column of B; a row (first axis) of any other tensor; a whole vector, or a
whole tensor whose components have fewer than 16 values each. `zero`
is its least value rounded down, `step` one L-th of the way from there to its largest one, rounded up, so every value
lies on the grid or between two of its points. It is rounded up with the probability of its share of the way, so

    E[decoded] = x,    |decoded - x| < step,    Var[decoded] <= step^2 / 4

(the stochastic quantiser of QSGD, arXiv 1610.02132, on an affine grid). Roundings are independent of one another, so a
product of two decoded factors is unbiased too: E[B' A'] = B A.
"""

import numpy as np
import numpy.typing as npt
from numpy.random import Generator

from fed_lorac.wire.layout import Slot, Values
from fed_lorac.wire.refusals import malformed

__all__ = [
    "grouped",
    "pack_bf16",
    "pack_fp16",
    "pack_rounded",
    "rounded_bytes",
    "ungrouped",
    "unpack_bf16",
    "unpack_fp16",
    "unpack_rounded",
]

Codes = npt.NDArray[np.uint8]

_GRID_BYTES = 4  # zero and step, two bytes each


def rounded_bytes(slot: Slot, bits: int) -> int:
    """4 bytes a group and `bits` a value, up to the next whole byte."""
    return _GRID_BYTES * slot.groups + (bits * slot.count + 7) // 8


def pack_rounded(values: Values, slot: Slot, rng: Generator, bits: int) -> bytes:
    """The tensor's bytes; `rng` decides which way each value is rounded."""
    if slot.count == 0:
        return b""
    rows, top = grouped(values, slot).astype(np.float64), (1 << bits) - 1
    zero = _bf16_down(rows.min(axis=1))
    step = _bf16_up((rows.max(axis=1) - zero) / top)
    way = np.divide(rows - zero[:, None], step[:, None], out=np.zeros_like(rows), where=step[:, None] > 0)
    codes = np.clip(np.floor(way + rng.random(way.shape)), 0, top).astype(np.uint8)
    grid = np.stack([zero, step]).astype("<f4").view("<u4") >> 16
    return grid.astype("<u2").tobytes() + _packed(codes.reshape(-1), bits)


def unpack_rounded(data: memoryview, slot: Slot, bits: int) -> Values:
    """The values on their grids, in the tensor's shape.

    Raises:
        FrameError: a grid that no packer makes, or padding that is not zero.
    """
    if slot.count == 0:
        return np.zeros(slot.shape, np.float32)
    split = _GRID_BYTES * slot.groups
    grid = unpack_bf16(data[:split])
    if not np.isfinite(grid).all():  # before the cast, at which NumPy warns of a forged NaN
        raise malformed("a zero point or a step is NaN or infinite")
    zero, step = grid.astype(np.float64).reshape(2, -1)
    codes = _unpacked(data[split:], slot.count, bits).reshape(slot.groups, -1)
    _check_grid(zero, step, codes)
    with np.errstate(over="ignore"):  # a forged grid: the frame is refused as not finite
        return ungrouped((zero[:, None] + step[:, None] * codes).astype(np.float32), slot)


def grouped(values: Values, slot: Slot) -> Values:
    """The values as (groups, values in one), contiguous."""
    moved = np.moveaxis(values, slot.axis, 0) if values.ndim > 1 else values
    return np.ascontiguousarray(moved).reshape(slot.groups, -1)


def ungrouped(rows: Values, slot: Slot) -> Values:
    """The inverse of `grouped`: values in the tensor's own order and shape."""
    if len(slot.shape) < 2:
        return rows.reshape(slot.shape)
    at = slot.axis % len(slot.shape)
    moved = (slot.shape[at], *slot.shape[:at], *slot.shape[at + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, at))


def _packed(codes: Codes, bits: int) -> bytes:
    """Codes side by side in bytes, the first one low; the last byte is filled up with zero bits."""
    if bits == 8:
        return codes.tobytes()
    each = 8 // bits
    filled = np.append(codes, np.zeros(-codes.size % each, np.uint8)).reshape(-1, each)
    packed: Codes = np.bitwise_or.reduce(filled << _shifts(bits), axis=1)
    return packed.tobytes()


def _shifts(bits: int) -> Codes:
    """By how much each code of a byte is shifted."""
    return np.arange(0, 8, bits, dtype=np.uint8)


def _unpacked(data: memoryview, count: int, bits: int) -> Codes:
    raw = np.frombuffer(data, np.uint8)
    if bits == 8:
        return raw
    codes: Codes = ((raw[:, None] >> _shifts(bits)) & np.uint8((1 << bits) - 1)).reshape(-1)
    if codes[count:].any():
        raise malformed(f"what fills up the last byte of int{bits} codes is zero bits, and this is not")
    return codes[:count]


def _check_grid(zero: npt.NDArray[np.float64], step: npt.NDArray[np.float64], codes: Codes) -> None:
    if np.signbit(step).any() or (np.signbit(zero) & (zero == 0)).any():
        raise malformed("a step is negative, or a zero point is -0")
    if codes[step == 0].any():
        raise malformed("a group has steps of zero and codes that are not")


def _bf16_down(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The largest bf16 numbers that are not above these float32 numbers; -0 becomes 0."""
    bits = values.astype(np.float32).view(np.uint32)
    away = np.where(values < 0, bits + np.uint32(0xFFFF), bits)
    return (away & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64) + 0.0


def _bf16_up(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The smallest bf16 numbers that are not below these numbers, which are not negative; -0 becomes 0."""
    near = (values + 0.0).astype(np.float32)
    above = np.where(near < values, np.nextafter(near, np.float32(np.inf)), near).astype(np.float32)
    return ((above.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)


# Floating-point formats of 16 bits, little-endian


def pack_fp16(values: Values) -> bytes:
    """Round to nearest, ties to even."""
    return values.astype("<f2").tobytes()


def unpack_fp16(data: memoryview) -> Values:
    """Flat, in memory of its own."""
    return np.frombuffer(data, "<f2").astype(np.float32)


def pack_bf16(values: Values) -> bytes:
    """Round to nearest, ties to even, on the bits: the same on every machine, whatever it does with denormals."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def unpack_bf16(data: memoryview) -> Values:
    """Flat, in memory of its own."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
