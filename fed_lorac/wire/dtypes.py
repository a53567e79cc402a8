"""Number formats on the wire: float32 values <-> little-endian bytes. Knows one tensor's values; not names or frames.

A later format (int8, int4, one bit, top-k) is one more row of `DTYPES` with a code of its own: a row may size a
tensor from its whole shape, so scales, zero points and bitmaps have their place in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod

import numpy as np
import numpy.typing as npt

from fed_lorac.wire.faults import RefusedFrameError

__all__ = ["DTYPES", "Shape", "WireDtype", "by_code", "by_name"]

Shape = tuple[int, ...]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WireDtype:
    """One number format: its code in the header, and how a tensor's values become bytes and come back."""

    name: str
    code: int
    overflow_at: float  # the smallest magnitude that does not round to a finite number
    size_bytes: Callable[[Shape], int]
    pack: Callable[[Values], bytes]
    unpack: Callable[[memoryview], Values]  # flat, in memory of its own


def _pack_fp32(values: Values) -> bytes:
    return values.astype("<f4", copy=False).tobytes()


def _unpack_fp32(data: memoryview) -> Values:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _pack_fp16(values: Values) -> bytes:
    return values.astype("<f2").tobytes()


def _unpack_fp16(data: memoryview) -> Values:
    return np.frombuffer(data, "<f2").astype(np.float32)


def _pack_bf16(values: Values) -> bytes:
    """Round to nearest, ties to even, on the bits: the same on every machine, whatever it does with denormals."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _unpack_bf16(data: memoryview) -> Values:
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


DTYPES: dict[str, WireDtype] = {
    row.name: row
    for row in (
        WireDtype("fp32", 1, inf, lambda shape: 4 * prod(shape), _pack_fp32, _unpack_fp32),
        WireDtype("fp16", 2, 65520.0, lambda shape: 2 * prod(shape), _pack_fp16, _unpack_fp16),
        # 0x1.FFp127 lies half-way between bf16's largest number, 0x1.FEp127, and the power of two above it.
        WireDtype("bf16", 3, float.fromhex("0x1.FFp127"), lambda shape: 2 * prod(shape), _pack_bf16, _unpack_bf16),
    )
}


def by_name(name: str) -> WireDtype:
    """The row called `name`; FrameError when there is none."""
    if name not in DTYPES:
        raise RefusedFrameError(
            f"A frame's dtype must be one of {', '.join(DTYPES)}; got {name!r}. Choose one of these.", "unknown dtype"
        )
    return DTYPES[name]


def by_code(code: int) -> WireDtype:
    """The row with this header code; FrameError when there is none."""
    known = {row.code: row for row in DTYPES.values()}
    if code not in known:
        listed = ", ".join(f"{row.code} ({row.name})" for row in known.values())
        raise RefusedFrameError(
            f"A frame's dtype code must be one of {listed}; this frame says {code}. "
            "Give both ends the same version of fed-lorac.",
            "unknown dtype",
        )
    return known[code]
