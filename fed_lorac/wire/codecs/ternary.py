"""Three values a group: -s, 0 and s, as near to the tensor as such can be. Knows one tensor's values and how they
group; not names or frames.

    tensor = scale * groups, trits        a scale is bf16; a byte is five trits, t_0 + 3 t_1 + ... + 81 t_4; padding
    value  = 0, s or -s                   for a trit of 0, 1 or 2

Groups are those of int8 (`wire.codecs.quantize`). Of a group's values x, by falling magnitude |x|_1 >= |x|_2 >= ...,
the k largest are kept with the mean of their magnitudes as scale:

    k = argmax (|x|_1 + ... + |x|_k)^2 / k,     s = (|x|_1 + ... + |x|_k) / k,     ||x - decoded||^2 = ||x||^2 - k s^2

which is the exact least-squares solution (Ternary Weight Networks, arXiv 1605.04711, equation 5; by a threshold
there). k = 1 alone leaves max |x|^2 >= ||x||^2 / n out of the error, so it is at most (1 - 1/n) ||x||^2: what error
feedback needs (arXiv 1901.09847, definition A). It is biased. The unbiased ternary of TernGrad (arXiv 1705.07878), s =
max |x|, has a relative error of s E|x| / E x^2 - 1, above 1 for normal values, which no feedback makes up for.

Trits are what is decoded, and there is one spelling for it, so decoding and packing again gives the same bytes.
"""

import numpy as np
import numpy.typing as npt

from fed_lorac.wire.codecs.quantize import grouped, pack_bf16, ungrouped, unpack_bf16
from fed_lorac.wire.layout import Slot, Values
from fed_lorac.wire.refusals import malformed

__all__ = ["pack_ternary", "packed_trits", "ternary_bytes", "trit_bytes", "unpack_ternary", "unpacked_trits"]

Trits = npt.NDArray[np.uint8]

_SCALE_BYTES, _EACH = 2, 5
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)
_PLACES = np.array([0, 1, -1], np.float32)


def ternary_bytes(slot: Slot) -> int:
    """2 bytes a group, and a byte for five values."""
    return _SCALE_BYTES * slot.groups + trit_bytes(slot.count)


def pack_ternary(values: Values, slot: Slot) -> bytes:
    """The tensor's bytes."""
    if slot.count == 0:
        return b""
    rows = grouped(values, slot)
    sizes = np.abs(rows).astype(np.float64)
    falling = -np.sort(-sizes, axis=1)
    sums, counts = np.cumsum(falling, axis=1), np.arange(1, falling.shape[1] + 1)
    best = np.argmax(sums**2 / counts, axis=1)[:, None]
    scale = pack_bf16((np.take_along_axis(sums, best, 1) / (best + 1)).astype(np.float32).reshape(-1))
    kept = (sizes >= np.take_along_axis(falling, best, 1)) & (unpack_bf16(memoryview(scale))[:, None] > 0)
    return scale + packed_trits(np.where(kept, np.where(rows < 0, 2, 1), 0).astype(np.uint8).reshape(-1))


def unpack_ternary(data: memoryview, slot: Slot) -> Values:
    """The values, in the tensor's shape.

    Raises:
        FrameError: scales or trits that no packer makes.
    """
    if slot.count == 0:
        return np.zeros(slot.shape, np.float32)
    split = _SCALE_BYTES * slot.groups
    scale = unpack_bf16(data[:split])
    rows = unpacked_trits(data[split:], slot.count).reshape(slot.groups, -1)
    if not np.isfinite(scale).all() or np.signbit(scale).any():
        raise malformed("a scale is negative, NaN or infinite")
    if ((scale > 0) != rows.any(axis=1)).any():
        raise malformed("a group has a scale and no value beside zero, or the other way round")
    return ungrouped(scale[:, None] * _PLACES[rows] + np.float32(0), slot)


def trit_bytes(count: int) -> int:
    """Bytes of so many trits, five a byte."""
    return -(-count // _EACH)


def packed_trits(trits: Trits) -> bytes:
    """Numbers 0, 1 and 2, flat, five a byte; the last byte is filled up with zeros."""
    filled = np.append(trits, np.zeros(-trits.size % _EACH, np.uint8)).reshape(-1, _EACH)
    return (filled @ _POWERS).astype(np.uint8).tobytes()


def unpacked_trits(data: memoryview, count: int) -> Trits:
    """The inverse, of so many; FrameError for bytes that it does not make."""
    raw = np.frombuffer(data, np.uint8)
    if (raw >= 3**_EACH).any():
        raise malformed("a byte of five trits is below 243, and this is not")
    trits: Trits = (raw[:, None] // _POWERS % 3).reshape(-1)
    if trits[count:].any():
        raise malformed("what fills up the last byte of trits is zeros, and this is not")
    return trits[:count]
