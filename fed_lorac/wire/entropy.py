"""Entropy coding: a payload in fewer bytes where its values are unevenly spread. Knows bytes; not what they mean.

Codes of a rounding lie around the middle of their grid, and positions of the largest values are few among many, so
bytes are not equally likely, and a Huffman code of them is shorter. It is deflate's (RFC 1951, raw), with matches and
without, whichever is smaller; never larger than without, as who sends compares. On the deltas of real runs it is within
4 % of the entropy of the codes (docs/codecs.md).

Values come back to the last bit. The bytes are those of this machine's zlib: another build may write others, of which
all read the same.
"""

import zlib

from fed_lorac.wire.refusals import malformed

__all__ = ["Inflated", "deflated"]

_RAW = -15  # no header, no checksum: the frame has one


def deflated(payload: bytes) -> bytes | None:
    """The payload in fewer bytes; None where it would be no smaller."""
    found = min((_by(strategy, payload) for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY)), key=len)
    return found if len(found) < len(payload) else None


def _by(strategy: int, payload: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, _RAW, 9, strategy)
    return packer.compress(payload) + packer.flush()


class Inflated:
    """A deflated payload, read in pieces of a length that its reader says: a stranger's takes no more memory than that.

    A thousand times its bytes may be asked for, so the length must follow from what the reader knows: its template.
    """

    def __init__(self, data: memoryview) -> None:
        self._reader, self._left = zlib.decompressobj(_RAW), bytes(data)

    def take(self, count: int) -> bytes:
        """The next bytes, so many; FrameError where there are fewer."""
        found = b""
        try:
            while len(found) < count and not self._reader.eof:
                piece = self._reader.decompress(self._left, count - len(found))
                stuck = not piece and len(self._reader.unconsumed_tail) == len(self._left)
                found, self._left = found + piece, self._reader.unconsumed_tail
                if stuck or not (self._left or piece):
                    break
        except zlib.error as error:
            raise malformed(f"its entropy code cannot be read: {error}") from None
        if len(found) < count:
            raise malformed(f"its entropy code ends {count - len(found)} bytes before the last value")
        return found

    def end(self) -> None:
        """FrameError unless all is read."""
        try:
            more = b"" if self._reader.eof else self._reader.decompress(self._left, 1)
        except zlib.error as error:
            raise malformed(f"its entropy code cannot be read: {error}") from None
        if more or self._reader.unused_data or not self._reader.eof:
            raise malformed("its entropy code goes on after the last value")
