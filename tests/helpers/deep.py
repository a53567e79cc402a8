"""Image files of any depth, written by hand: Pillow writes few of them, and cuts most when it reads them."""

import struct
import zlib

__all__ = ["png", "ppm", "tiff"]

SIDE = 9
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6  # PNG's colour types
CHANNELS = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}


def png(bits: int, colour: int) -> bytes:
    """A PNG of one colour, the same sample everywhere."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    row = b"\0" + b"\x80" * -(-SIDE * CHANNELS[colour] * bits // 8)
    head = struct.pack(">IIBBBBB", SIDE, SIDE, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * SIDE)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(bits: int, channels: int = 3, sample_format: int = 1) -> bytes:
    """An uncompressed TIFF: header, pixels, the bits of each channel, its table of tags."""
    pixels = b"\x80" * (SIDE * SIDE * channels * bits // 8)
    depths = struct.pack(f"<{channels}H", *[bits] * channels)
    photometric = 2 if channels == 3 else 1
    tags = [(256, 3, 1, SIDE), (257, 3, 1, SIDE), (258, 3, channels, 8 + len(pixels) if channels > 2 else bits)]
    tags += [(259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, SIDE)]
    tags += [(279, 4, 1, len(pixels)), (339, 3, 1, sample_format)]
    table = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels) + len(depths)) + pixels + depths + table


def ppm(largest: int, kind: str = "P6") -> bytes:
    """A portable pixmap (P6) or greymap (P5) whose largest value is this, or the same in letters (P3, P2)."""
    samples = SIDE * SIDE * (3 if kind in ("P6", "P3") else 1)
    value = largest // 2
    one = f"{value} ".encode() if kind in ("P3", "P2") else value.to_bytes(2 if largest > 255 else 1, "big")
    return f"{kind}\n# by hand\n{SIDE} {SIDE}\n{largest}\n".encode() + one * samples
