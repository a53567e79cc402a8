"""Image files to pixels. Knows formats, colours, depths and sizes; not classes, splits or caches.

Files come from outside, so only the plain raster formats below are opened (Pillow would hand others to programs such
as Ghostscript), and whatever Pillow raises on a damaged one leaves here as a `DataError` that names the file.

A file deeper than 8 bits a channel is refused, not converted. Pillow cuts most of them down to their high bytes without
a word, and only their owner knows which range holds the picture: that of a thermal camera is a small part of 16 bits.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fed_lorac.data.progress import watched
from fed_lorac.errors import DataError
from fed_lorac.runtime.source import source_of

__all__ = ["Resize", "decode", "decode_all", "decode_settings", "resize"]

Resize = Literal["squeeze", "crop"]
"""How an image becomes a square: squeezed, or brought to size by its shorter side and cropped to its middle."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
LAW = f"Every file of an image folder must be a whole image of 8 bits a channel ({', '.join(FORMATS)})"
COPY = "Copy it again from its source, or remove it."
CONVERT = "Convert it in place, for example by ImageMagick's `magick mogrify -depth 8 FILE`, or remove it."
CHUNK = 128  # images a task: long enough to hide the pool's overhead, short enough for an even bar
NAMED = 10  # of the files that fail, at once

_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF's tags


class _UnfitError(Exception):
    """Why one file cannot be taken, and what to do."""

    def __init__(self, reason: str, remedy: str = COPY) -> None:
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy


def decode_settings(size: int, how: Resize = "squeeze") -> str:
    """What, besides the file, decides the pixels: part of a cache key."""
    return f"rgb uint8 {size}x{size} bilinear {how}, pillow {PIL.__version__}, code {source_of(__name__)}"


def resize(image: Image.Image, size: int, how: Resize = "squeeze") -> UInt8[np.ndarray, "size size 3"]:
    """An RGB image as a square of this size (Pillow's bilinear filter widens when shrinking: no aliasing)."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR, _middle(image) if how == "crop" else None)
    return np.asarray(image, dtype=np.uint8)


def _middle(image: Image.Image) -> tuple[float, float, float, float]:
    """The square in the middle of an image, as wide as its shorter side."""
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    return left, top, left + side, top + side


def _rgb(image: Image.Image) -> Image.Image:
    """Upright, in RGB, transparency laid over white."""
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _depth(image: ImageFile.ImageFile, data: bytes) -> str:
    """What the file says of its channels, in words, unless they are plain ones of 8 bits or fewer."""
    plain = image.mode in EIGHT_BIT
    bits, kind = (8, "") if plain else (32, " float") if image.mode == "F" else (16, "")
    if image.format == "PNG":
        bits = data[data.index(b"IHDR") + 12]  # after the name of the chunk, width and height
    elif image.format == "TIFF":
        tags: Mapping[int, Sequence[int]] = image.tag_v2  # type: ignore[attr-defined]
        bits = max(tags.get(_BITS_PER_SAMPLE, (1,)))
        kind = {2: " signed", 3: " float"}.get(max(tags.get(_SAMPLE_FORMAT, (1,))), "")
    elif image.format == "PPM" and isinstance(settings := image.tile[0].args, tuple) and not kind:
        bits = settings[-1].bit_length() if isinstance(settings[-1], int) else bits  # of the largest value
    return f"it has {bits}{kind} bits a channel" if bits > 8 or kind else ""


def _pixels(path: Path | str, size: int, how: Resize) -> UInt8[np.ndarray, "size size 3"]:
    try:
        data = Path(path).read_bytes()
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.format == "JPEG" and b"\xff\xd9" not in data:  # Pillow may overlook it
                raise _UnfitError("image file is truncated, its end marker is missing")
            if depth := _depth(image, data):
                raise _UnfitError(depth, CONVERT)
            return resize(_rgb(image), size, how)
    except _UnfitError:
        raise
    except UnidentifiedImageError:
        raise _UnfitError(*_unknown(data)) from None
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
        raise _UnfitError(str(error) or type(error).__name__) from error


def _unknown(data: bytes) -> tuple[str, str]:
    """Why Pillow takes these bytes for no image, in the words of the format that they begin as; and a remedy."""
    if not data:
        return "it is empty", COPY
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(data[:16]) is True:
            try:
                factory(BytesIO(data), "")
            except Exception as error:
                return f"{name}: {error}", "Copy it again, save it anew with 8 bits a channel, or remove it."
    return "it begins like none of these formats", COPY


def decode(path: Path | str, size: int, how: Resize = "squeeze") -> UInt8[np.ndarray, "size size 3"]:
    """The pixels of one file as a square; of an animation the first frame.

    Raises:
        DataError: not an image of a known format, truncated, damaged, unreadable, or deeper than 8 bits a channel.
    """
    try:
        return _pixels(path, size, how)
    except _UnfitError as error:
        raise _refusal({path: error}, 1, 1) from error


def decode_all(
    paths: Sequence[Path | str], size: int, title: str, how: Resize = "squeeze"
) -> UInt8[np.ndarray, "n size size 3"]:
    """The pixels of many files, in order, decoded by a pool of threads (Pillow's decoders release the GIL).

    Raises:
        DataError: as `decode`, of all the files that fail: the first ten by name, with the reason of each.
    """
    images = np.empty((len(paths), size, size, 3), np.uint8)

    def fill(start: int) -> dict[Path | str, _UnfitError]:
        unfit = {}
        for place, path in enumerate(paths[start : start + CHUNK], start):
            try:
                images[place] = _pixels(path, size, how)
            except _UnfitError as error:
                unfit[path] = error
        return unfit

    unfit, count = dict[Path | str, _UnfitError](), 0
    starts = range(0, len(paths), CHUNK)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        try:
            done: Iterator[dict[Path | str, _UnfitError]] = pool.map(fill, starts)
            for part in watched(done, total=len(starts), title=title):
                count += len(part)
                unfit |= dict(islice(part.items(), NAMED - len(unfit)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if count:
        raise _refusal(unfit, count, len(paths))
    return images


def _refusal(unfit: Mapping[Path | str, _UnfitError], count: int, total: int) -> DataError:
    """One sentence for one file; for several a line each, then what may help."""
    remedies = dict.fromkeys(error.remedy for error in unfit.values())
    if count == 1:
        (path,) = unfit
        return DataError(f"{LAW}; {path} is not: {unfit[path].reason}. {''.join(remedies)}")
    lines = [f"  {path}: {error.reason}" for path, error in unfit.items()]
    more = [f"  and {count - len(unfit)} more"] if count > len(unfit) else []
    return DataError("\n".join([f"{LAW}; {count} of {total} are not:", *lines, *more, *remedies]))
