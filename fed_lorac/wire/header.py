"""A frame's first 18 bytes and last 4: is this one whole frame? Knows lengths and checksums; not names or values.

    header = "FLRC", version u8, dtype code u8, base tag (8 bytes), length of the whole frame u32, little-endian
    crc    = CRC-32 (ISO-HDLC, zlib's) of every byte before it, u32 little-endian

The checksum finds every flipped bit and every burst of up to 32; it is no signature.
"""

import hashlib
import struct
import zlib

from fed_lorac.wire.refusals import RefusedFrameError

__all__ = ["CRC_BYTES", "HEADER_BYTES", "VERSION", "base_tag", "check_whole", "read_header", "seal"]

MAGIC = b"FLRC"
VERSION = 1
_HEADER = struct.Struct("<4sBB8sI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
CRC_BYTES = _CRC.size
_SMALLEST_BYTES = HEADER_BYTES + 1 + CRC_BYTES  # an empty state: a table of one byte, no payload
_LARGEST_BYTES = (1 << 32) - 1


def base_tag(base: str) -> bytes:
    """The 8 bytes that stand for a base model's fingerprint in a header: the start of its SHA-256."""
    return hashlib.sha256(base.encode("utf-8", "surrogatepass")).digest()[:8]


def seal(code: int, tag: bytes, parts: list[bytes]) -> bytes:
    """A whole frame from its dtype code, base tag, and the parts between header and checksum."""
    length = HEADER_BYTES + sum(map(len, parts)) + CRC_BYTES
    if length > _LARGEST_BYTES:
        raise RefusedFrameError(
            f"A frame is at most {_LARGEST_BYTES} bytes; this state makes {length}. Send it as several frames.",
            "not encodable",
        )
    body = b"".join([_HEADER.pack(MAGIC, VERSION, code, tag, length), *parts])
    return body + _CRC.pack(zlib.crc32(body))


def read_header(frame: memoryview) -> tuple[int, bytes]:
    """dtype code and base tag of a frame that `check_whole` has passed."""
    _, _, code, tag, _ = _HEADER.unpack_from(frame)
    return code, tag


def check_whole(frame: memoryview) -> None:
    """Pass a frame of this version that is as long as it says and matches its checksum; else a FrameError says why."""
    _check_start(bytes(frame[: len(MAGIC) + 1]))
    _check_length(frame)
    (written,), computed = _CRC.unpack_from(frame, len(frame) - CRC_BYTES), zlib.crc32(frame[:-CRC_BYTES])
    if written != computed:
        raise RefusedFrameError(
            f"A frame must match its checksum; its bytes give {computed:#010x}, it says {written:#010x}. "
            "Bits were flipped on the way: send it again.",
            "damaged",
        )


def _check_start(start: bytes) -> None:
    magic, version = start[: len(MAGIC)], start[len(MAGIC) :]
    if magic != MAGIC[: len(magic)]:
        raise RefusedFrameError(
            f"A frame starts with {MAGIC!r}; these bytes start with {magic!r}. Is this a frame at all?", "not a frame"
        )
    if version and version[0] != VERSION:
        raise RefusedFrameError(
            f"A frame must be of version {VERSION}; this one says {version[0]}. "
            "Give both ends the same version of fed-lorac.",
            "other version",
        )


def _check_length(frame: memoryview) -> None:
    length = _HEADER.unpack_from(frame)[4] if len(frame) >= HEADER_BYTES else 0
    if len(frame) < max(length, _SMALLEST_BYTES):
        raise RefusedFrameError(
            f"A frame must be as long as its header says, and {_SMALLEST_BYTES} bytes at least; {len(frame)} came "
            f"where {max(length, _SMALLEST_BYTES)} or more were due. It was cut short on the way: send it again.",
            "truncated",
        )
    if len(frame) > length:
        raise RefusedFrameError(
            f"A frame must end where its header says, after {length} bytes; {len(frame)} came, {len(frame) - length} "
            "trailing. Cut the message into frames before decoding.",
            "trailing bytes",
        )
