"""One tensor's values in a frame: their place, and how they are written as plain floating-point numbers. Knows shapes
and numbers; not what else is in a frame."""

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

__all__ = [
    "Shape",
    "Slot",
    "Values",
    "component_axis",
    "pack_bf16",
    "pack_fp16",
    "pack_fp32",
    "unpack_bf16",
    "unpack_fp16",
    "unpack_fp32",
]

Shape = tuple[int, ...]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Slot:
    """One tensor's place.

    `number` counts a frame's tensors from 0; `setup` is what the frame says once, for all of them; along `axis` lie
    the tensor's rank components, or its rows.
    """

    shape: Shape
    number: int = 0
    axis: int = 0
    setup: bytes = b""

    @property
    def count(self) -> int:
        """How many values it holds."""
        return prod(self.shape)

    @property
    def groups(self) -> int:
        """How many rank components, or rows, it has; a vector and a single number are one, an empty tensor none."""
        if self.count == 0:
            return 0
        return self.shape[self.axis] if len(self.shape) > 1 else 1

    def grouped(self, values: Values) -> Values:
        """The values as (groups, values in one), contiguous."""
        return np.ascontiguousarray(np.moveaxis(values, self.axis, 0) if values.ndim > 1 else values).reshape(
            self.groups, -1
        )

    def ungrouped(self, rows: Values) -> Values:
        """The inverse of `grouped`: values in the tensor's own order and shape."""
        if len(self.shape) < 2:
            return rows.reshape(self.shape)
        at = self.axis % len(self.shape)
        moved = (self.shape[at], *self.shape[:at], *self.shape[at + 1 :])
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, at))


def component_axis(name: str, shape: Shape) -> int:
    """The axis on which a tensor's rank components lie: rows of "<name>.A", columns of "<name>.B", else the first.

    The kernel-wise A (out, in, r, K) and B (out, in, K, r) have theirs on the same axis, counted from the end.
    """
    if len(shape) < 2:
        return 0
    return {"A": -2, "B": -1}.get(name.rpartition(".")[2], 0)


# Floating-point formats: float32 values <-> little-endian bytes


def pack_fp32(values: Values) -> bytes:
    """As they are."""
    return values.astype("<f4", copy=False).tobytes()


def unpack_fp32(data: memoryview) -> Values:
    """Flat, in memory of its own."""
    return np.frombuffer(data, "<f4").astype(np.float32)


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
