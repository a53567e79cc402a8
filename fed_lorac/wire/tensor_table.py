"""The table in a frame: which tensors, of which shapes, in a few bytes each. Knows names and sizes; not values.

    table  = count, entry * count                       every number is a varint (LEB128, shortest form only)
    entry  = shared, suffix_length * 8 + ndim, suffix, dim * ndim

Names are sorted by their UTF-8 bytes and front-coded: `shared` bytes are those of the name before. There is exactly
one table for a set of names and shapes, and the reader refuses every other spelling of it.
"""

from collections.abc import Sequence
from math import prod

from fed_lorac.wire.codecs.slot import Shape
from fed_lorac.wire.refusals import Reason, RefusedFrameError

__all__ = ["MAX_NAME_BYTES", "MAX_NUMBERS", "MAX_TENSORS", "pack_table", "read_table"]

# What a reader will hold in memory on a stranger's word: front coding could otherwise grow names quadratically.
MAX_NAME_BYTES = 1_024
MAX_TENSORS = 65_535
MAX_DIMS = 7  # three bits
MAX_NUMBERS = (1 << 32) - 1  # a frame's own length is 32 bits

Entry = tuple[str, Shape]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _shared(before: bytes, name: bytes) -> int:
    """The length of the prefix that two names have in common."""
    return next(
        (at for at, (a, b) in enumerate(zip(before, name, strict=False)) if a != b), min(len(before), len(name))
    )


def _check(entries: int, name: bytes, shape: Shape, reason: Reason) -> None:
    """The limits, for writer and reader alike."""
    law = (
        f"A frame carries at most {MAX_TENSORS} tensors, each with a name of at most {MAX_NAME_BYTES} bytes, at most "
        f"{MAX_DIMS} dimensions and at most {MAX_NUMBERS} numbers (an empty dimension counted as one)"
    )
    if entries > MAX_TENSORS:
        raise RefusedFrameError(f"{law}; this one has {entries} tensors. Send several frames.", reason)
    if len(name) > MAX_NAME_BYTES:
        raise RefusedFrameError(f"{law}; a name starting {name[:32]!r} has {len(name)} bytes. Shorten it.", reason)
    if len(shape) > MAX_DIMS or prod(max(dim, 1) for dim in shape) > MAX_NUMBERS:
        raise RefusedFrameError(f"{law}; tensor {name[:64]!r} has shape {shape}. Split the tensor.", reason)


def pack_table(entries: Sequence[Entry]) -> bytes:
    """The bytes of a table whose entries are sorted by name; FrameError where one is beyond the limits."""
    out, before = [_varint(len(entries))], b""
    for text, shape in entries:
        name = text.encode()
        _check(len(entries), name, shape, "not encodable")
        shared = _shared(before, name)
        out += [_varint(shared), _varint((len(name) - shared) << 3 | len(shape)), name[shared:]]
        out += map(_varint, shape)
        before = name
    return b"".join(out)


def _malformed(what: str) -> RefusedFrameError:
    return RefusedFrameError(
        f"A frame's table must be whole and in its one canonical form; {what}. "
        "The sender is not this codec: encode with fed_lorac.wire.frame.encode.",
        "malformed table",
    )


class _Cursor:
    """Reads numbers and bytes off a view, never past its end."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise _malformed(f"it ends {count - (len(self.data) - self.at)} bytes early")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def varint(self) -> int:
        number = 0
        for shift in range(0, 35, 7):  # five bytes hold 32 bits and more
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise _malformed("a number in it is longer than need be")
                return number
        raise _malformed("a number in it is beyond 35 bits")


def _read_name(cursor: _Cursor, before: bytes | None) -> tuple[bytes, int]:
    """The next name and its number of dimensions; `before` is None at the first entry."""
    shared, token = cursor.varint(), cursor.varint()
    known, suffix = before or b"", cursor.take(token >> 3)
    name = known[:shared] + suffix
    if before is not None and name == before:
        raise _malformed(f"it names {name[:64]!r} twice")
    if before is not None and name < before:
        raise _malformed(f"{name[:64]!r} stands after {before[:64]!r}: not sorted")
    if shared > len(known) or (suffix and suffix[:1] == known[shared : shared + 1]):
        raise _malformed(f"{name[:64]!r} is not coded against the whole prefix it shares with the name before")
    return name, token & 7


def read_table(data: memoryview) -> tuple[list[Entry], int]:
    """The entries of the table that `data` starts with, and the bytes it took; FrameError unless it is canonical."""
    cursor = _Cursor(data)
    entries: list[Entry] = []
    before: bytes | None = None
    count = cursor.varint()
    for _ in range(count):
        name, ndim = _read_name(cursor, before)
        shape = tuple(cursor.varint() for _ in range(ndim))
        _check(count, name, shape, "malformed table")
        try:
            entries.append((name.decode(), shape))
        except UnicodeDecodeError:
            raise _malformed(f"the name {name[:64]!r} is not UTF-8") from None
        before = name
    return entries, cursor.at
