"""The layout of a frame: header, table, each tensor's place, checksum. Knows lengths, names, shapes and checksums; not
how values are written.

    version 1: "FLRC", 1 u8, dtype code u8, base tag (8 bytes), length of the whole frame u32, little-endian; then
    table  = count, entry * count                       every number is a varint (LEB128, shortest form only)
    entry  = shared, suffix_length * 8 + ndim, suffix, dim * ndim
    version 2: 2 u8 (130: the payload is entropy-coded), dtype code u8, template tag (4 bytes), base tag (8 bytes); then
    runs   = count, (length, choice) * count            what became of each tensor of the template (wire/template.py)
    crc    = CRC-32 (ISO-HDLC, zlib's) of every byte before it, u32 little-endian

The checksum finds every flipped bit and every burst of up to 32; it is no signature. Names are sorted by their UTF-8
bytes and front-coded: `shared` bytes are those of the name before. There is exactly one table for a set of names and
shapes, and the reader refuses every other spelling of it.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fed_lorac.wire.refusals import Reason, RefusedFrameError

__all__ = [
    "CRC_BYTES",
    "HEADER_BYTES",
    "MAX_NAME_BYTES",
    "MAX_NUMBERS",
    "MAX_TENSORS",
    "NAMED",
    "SHORT",
    "SHORT_HEADER_BYTES",
    "Cursor",
    "Entry",
    "Header",
    "Shape",
    "Slot",
    "Values",
    "base_tag",
    "check_limits",
    "malformed_table",
    "open_header",
    "pack_table",
    "read_table",
    "seal",
    "varint",
]

Shape = tuple[int, ...]
Values = npt.NDArray[np.float32]

MAGIC = b"FLRC"
NAMED, SHORT = 1, 2
"""Versions: a frame that names its tensors, and one whose tensors both ends know."""
_CODED = 0x80
_HEADER = struct.Struct("<4sBB8sI")
_SHORT = struct.Struct("<BB4s8s")
_CRC = struct.Struct("<I")
HEADER_BYTES, SHORT_HEADER_BYTES, CRC_BYTES = _HEADER.size, _SHORT.size, _CRC.size
_LARGEST_BYTES = (1 << 32) - 1

# What a reader will hold in memory on a stranger's word: front coding could otherwise grow names quadratically.
MAX_NAME_BYTES = 1_024
MAX_TENSORS = 65_535
MAX_DIMS = 7  # three bits
MAX_NUMBERS = (1 << 32) - 1  # a frame's own length is 32 bits

LEAST_IN_GROUP = 16  # values that are worth a grid of four bytes: in int4 a row of a 4 x 4 core is two

Entry = tuple[str, Shape]


def base_tag(base: str) -> bytes:
    """The 8 bytes that stand for a base model's fingerprint in a header: the start of its SHA-256."""
    return hashlib.sha256(base.encode("utf-8", "surrogatepass")).digest()[:8]


class Header(NamedTuple):
    """What a frame begins with; `template`: the tag of what it does not say, empty where it names its tensors."""

    version: int
    code: int
    base: bytes
    template: bytes
    size: int
    coded: bool = False


def seal(code: int, base: bytes, parts: list[bytes], template: bytes = b"", coded: bool = False) -> bytes:
    """A whole frame from its dtype code, tags, and the parts between header and checksum; with names where there is no
    tag of a template."""
    length = (SHORT_HEADER_BYTES if template else HEADER_BYTES) + sum(map(len, parts)) + CRC_BYTES
    if length > _LARGEST_BYTES:
        raise RefusedFrameError(
            f"A frame is at most {_LARGEST_BYTES} bytes; this state makes {length}. Send it as several frames.",
            "not encodable",
        )
    short = _SHORT.pack(SHORT | _CODED * coded, code, template, base)
    body = b"".join([short if template else _HEADER.pack(MAGIC, NAMED, code, base, length), *parts])
    return body + _CRC.pack(zlib.crc32(body))


def open_header(frame: memoryview) -> Header:
    """The header of a frame of either version that is whole and matches its checksum; else a FrameError says why."""
    if frame[:1] in (bytes([SHORT]), bytes([SHORT | _CODED])):
        _check_length(frame, None, SHORT_HEADER_BYTES)
        version, code, template, base = _SHORT.unpack_from(frame)
        header = Header(version & ~_CODED, code, base, template, SHORT_HEADER_BYTES, version >= _CODED)
    else:
        _check_start(bytes(frame[: len(MAGIC) + 1]))
        _check_length(frame, _HEADER.unpack_from(frame)[4] if len(frame) >= HEADER_BYTES else 0, HEADER_BYTES)
        _, version, code, base, _ = _HEADER.unpack_from(frame)
        header = Header(version, code, base, b"", HEADER_BYTES)
    (written,), computed = _CRC.unpack_from(frame, len(frame) - CRC_BYTES), zlib.crc32(frame[:-CRC_BYTES])
    if written != computed:
        raise RefusedFrameError(
            f"A frame must match its checksum; its bytes give {computed:#010x}, it says {written:#010x}. "
            "It was damaged on the way: send it again.",
            "damaged",
        )
    return header


def _check_start(start: bytes) -> None:
    magic, version = start[: len(MAGIC)], start[len(MAGIC) :]
    if magic != MAGIC[: len(magic)]:
        raise RefusedFrameError(
            f"A frame starts with {MAGIC!r} or {bytes([SHORT])!r}; these bytes start with {magic!r}. "
            "Is this a frame at all?",
            "not a frame",
        )
    if version and version[0] != NAMED:
        raise RefusedFrameError(
            f"A frame that starts with {MAGIC!r} must be of version {NAMED}; this one says {version[0]}. "
            "Give both ends the same version of fed-lorac.",
            "other version",
        )


def _check_length(frame: memoryview, length: int | None, header: int) -> None:
    """`length`: as the frame says, None where it does not."""
    least = max(length or 0, header + 1 + CRC_BYTES)  # an empty state: a table, or runs, of one byte, no payload
    if len(frame) < least:
        raise RefusedFrameError(
            f"A frame must be as long as its header says, and {header + 1 + CRC_BYTES} bytes at least; {len(frame)} "
            f"came where {least} or more were due. It was cut short on the way: send it again.",
            "truncated",
        )
    if length is not None and len(frame) > length:
        raise RefusedFrameError(
            f"A frame must end where its header says, after {length} bytes; {len(frame)} came, {len(frame) - length} "
            "trailing. Cut the message into frames before decoding.",
            "trailing bytes",
        )


# The table


def varint(number: int) -> bytes:
    """LEB128, shortest form."""
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


def check_limits(entries: int, name: bytes, shape: Shape, reason: Reason) -> None:
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
    out, before = [varint(len(entries))], b""
    for text, shape in entries:
        name = text.encode()
        check_limits(len(entries), name, shape, "not encodable")
        shared = _shared(before, name)
        out += [varint(shared), varint((len(name) - shared) << 3 | len(shape)), name[shared:]]
        out += map(varint, shape)
        before = name
    return b"".join(out)


def malformed_table(what: str) -> RefusedFrameError:
    """The refusal of names, shapes or runs that no sender writes."""
    return RefusedFrameError(
        f"A frame's table must be whole and in its one canonical form; {what}. "
        "The sender is not this codec: encode with fed_lorac.wire.frame.encode.",
        "malformed table",
    )


class Cursor:
    """Reads numbers and bytes off a view, never past its end."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        """So many bytes."""
        if count > len(self.data) - self.at:
            raise malformed_table(f"it ends {count - (len(self.data) - self.at)} bytes early")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def varint(self) -> int:
        """A number."""
        number = 0
        for shift in range(0, 35, 7):  # five bytes hold 32 bits and more
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise malformed_table("a number in it is longer than need be")
                return number
        raise malformed_table("a number in it is beyond 35 bits")


def _read_name(cursor: Cursor, before: bytes | None) -> tuple[bytes, int]:
    """The next name and its number of dimensions; `before` is None at the first entry."""
    shared, token = cursor.varint(), cursor.varint()
    known, suffix = before or b"", cursor.take(token >> 3)
    name = known[:shared] + suffix
    if before is not None and name == before:
        raise malformed_table(f"it names {name[:64]!r} twice")
    if before is not None and name < before:
        raise malformed_table(f"{name[:64]!r} stands after {before[:64]!r}: not sorted")
    if shared > len(known) or (suffix and suffix[:1] == known[shared : shared + 1]):
        raise malformed_table(f"{name[:64]!r} is not coded against the whole prefix it shares with the name before")
    return name, token & 7


def read_table(data: memoryview) -> tuple[list[Entry], int]:
    """The entries of the table that `data` starts with, and the bytes it took; FrameError unless it is canonical."""
    cursor = Cursor(data)
    entries: list[Entry] = []
    before: bytes | None = None
    count = cursor.varint()
    for _ in range(count):
        name, ndim = _read_name(cursor, before)
        shape = tuple(cursor.varint() for _ in range(ndim))
        check_limits(count, name, shape, "malformed table")
        try:
            entries.append((name.decode(), shape))
        except UnicodeDecodeError:
            raise malformed_table(f"the name {name[:64]!r} is not UTF-8") from None
        before = name
    return entries, cursor.at


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
        """Into how many groups its values fall: one a rank component, or a row. One in all for a vector, a single
        number, and where a component would have fewer than `LEAST_IN_GROUP` values; none for an empty tensor."""
        if self.count == 0:
            return 0
        parts = self.shape[self.axis] if len(self.shape) > 1 else 1
        return parts if self.count >= parts * LEAST_IN_GROUP else 1
