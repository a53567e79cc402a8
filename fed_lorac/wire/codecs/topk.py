"""Top-k: the largest values of a tensor, and their positions. Knows one tensor's values; not names or frames.

    tensor = places, k float32 values                  in the tensor's order, k = ceil(share * d), at least 1
    places = a bitmap of d bits, or k indices of ceil(log2 d) bits, whichever is smaller; then padding

The share travels once a frame, in millionths. What is left out is at most (1 - k/d) ||x||^2, with equality where all
values are alike ("Sparsified SGD with Memory", arXiv 1809.07599, lemma A.1). It is biased: nothing makes up for what is
left out, unless error feedback sends it later.
"""

import struct
from numbers import Real

import numpy as np
import numpy.typing as npt

from fed_lorac.wire.layout import Slot, Values
from fed_lorac.wire.refusals import RefusedFrameError, malformed

__all__ = [
    "LEAST_SHARE",
    "SHARE_BYTES",
    "check_share",
    "kept_count",
    "pack_share",
    "pack_topk",
    "topk_bytes",
    "unpack_topk",
]

LEAST_SHARE = 0.001
"""So values take at most a thousand times the bytes of their payload in memory, on a stranger's word. Where that is
entropy-coded, what a template allows is the bound (wire/template.py)."""

SHARE_BYTES = 4
_WHOLE = 1_000_000
_SHARE = struct.Struct("<I")

Places = npt.NDArray[np.intp]


def pack_share(share: float) -> bytes:
    """What a frame says once; FrameError unless the share is within 0.001 and 1."""
    if isinstance(share, bool) or not isinstance(share, Real) or not LEAST_SHARE <= share <= 1:
        raise RefusedFrameError(
            f"Top-k sends a share of {LEAST_SHARE} to 1 of each tensor's values; got {share!r}. Choose one between.",
            "not encodable",
        )
    return _SHARE.pack(round(share * _WHOLE))


def check_share(setup: bytes) -> None:
    """FrameError where a frame says a share that none may have."""
    (millionths,) = _SHARE.unpack(setup)
    if not LEAST_SHARE * _WHOLE <= millionths <= _WHOLE:
        raise malformed(f"its share of values is {millionths} millionths, not {LEAST_SHARE * _WHOLE:.0f} to {_WHOLE}")


def kept_count(count: int, setup: bytes) -> int:
    """k of a tensor with `count` values."""
    return -(-count * _SHARE.unpack(setup)[0] // _WHOLE)  # type: ignore[no-any-return]


def _places_bytes(count: int, kept: int) -> tuple[int, bool]:
    """Bytes of the places, and whether they are a bitmap."""
    bitmap, indices = -(-count // 8), -(-kept * _index_bits(count) // 8)
    return min(bitmap, indices), bitmap <= indices


def _index_bits(count: int) -> int:
    return max(0, count - 1).bit_length()


def topk_bytes(slot: Slot) -> int:
    """Places and values."""
    kept = kept_count(slot.count, slot.setup)
    return _places_bytes(slot.count, kept)[0] + 4 * kept


def pack_topk(values: Values, slot: Slot) -> bytes:
    """The tensor's bytes; of equal magnitudes the first ones are sent."""
    flat, kept = values.reshape(-1), kept_count(slot.count, slot.setup)
    places = _largest(np.abs(flat), kept)
    return _pack_places(places, slot.count) + flat[places].astype("<f4", copy=False).tobytes()


def unpack_topk(data: memoryview, slot: Slot) -> Values:
    """The values in the tensor's shape, zero where none was sent.

    Raises:
        FrameError: bytes that `pack_topk` writes for no tensor.
    """
    kept = kept_count(slot.count, slot.setup)
    split = _places_bytes(slot.count, kept)[0]
    places, values = _unpack_places(data[:split], slot.count, kept), np.frombuffer(data[split:], "<f4")
    if not np.isfinite(values).all():
        raise RefusedFrameError(
            "A frame carries finite numbers; a top-k value is NaN or infinite. Leave this camera out of the round.",
            "non-finite",
        )
    if places.size != kept or places.max(initial=0) >= max(1, slot.count):
        raise malformed(f"top-k names {kept} of {slot.count} places, each once")
    flat = np.zeros(slot.count, np.float32)
    flat[places] = values
    if pack_topk(flat, slot) != data:
        raise malformed("the places of top-k ascend, are the first of equals, and end in zero bits")
    return flat.reshape(slot.shape)


def _largest(sizes: Values, kept: int) -> Places:
    """Ascending places of the `kept` largest, the first ones among equals."""
    if kept == sizes.size:
        return np.arange(kept)
    least = np.partition(sizes, sizes.size - kept)[sizes.size - kept]
    above, equal = np.flatnonzero(sizes > least), np.flatnonzero(sizes == least)
    return np.sort(np.concatenate([above, equal[: kept - above.size]]))


def _pack_places(places: Places, count: int) -> bytes:
    if _places_bytes(count, places.size)[1]:
        bits = np.zeros(count, np.uint8)
        bits[places] = 1
    else:
        bits = (places[:, None] >> np.arange(_index_bits(count))[::-1] & 1).astype(np.uint8)
    return np.packbits(bits).tobytes()


def _unpack_places(data: memoryview, count: int, kept: int) -> Places:
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if _places_bytes(count, kept)[1]:
        return np.flatnonzero(bits[:count])
    width = _index_bits(count)
    weights = 1 << np.arange(width, dtype=np.int64)[::-1]
    return (bits[: kept * width].reshape(kept, width) @ weights).astype(np.intp)
