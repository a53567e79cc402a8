"""Floating-point formats on the wire: float32 values <-> little-endian bytes. Knows one tensor's values; not frames."""

import numpy as np

from fed_lorac.wire.codecs.slot import Values

__all__ = ["pack_bf16", "pack_fp16", "pack_fp32", "unpack_bf16", "unpack_fp16", "unpack_fp32"]


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
