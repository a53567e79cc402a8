"""Image files to pixels. Knows formats, colours and sizes; not classes, splits or caches.

Files come from outside, so only the plain raster formats below are opened (Pillow would hand others to programs such
as Ghostscript), and whatever Pillow raises on a damaged one leaves here as a `DataError` that names the file.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, ImageOps

from fed_lorac.data.progress import watched
from fed_lorac.errors import DataError

__all__ = ["decode", "decode_all", "decode_settings", "resize"]

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
CHUNK = 128  # images a task: long enough to hide the pool's overhead, short enough for an even bar


def decode_settings(size: int) -> str:
    """What, besides the file, decides the pixels: part of a cache key."""
    return f"rgb uint8 {size}x{size} bilinear, pillow {PIL.__version__}"


def resize(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An RGB image as a square of this size (Pillow's bilinear filter widens when shrinking: no aliasing)."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    """Upright, in RGB, transparency laid over white."""
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    layer = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def decode(path: Path | str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The pixels of one file, squeezed to a square; of an animation the first frame.

    Raises:
        DataError: not an image of a known format, truncated, damaged, unreadable, or deeper than 8 bits a channel.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format == "JPEG" and b"\xff\xd9" not in Path(path).read_bytes():
                raise ValueError("image file is truncated, its end marker is missing")  # which Pillow may overlook
            if image.mode in EIGHT_BIT:
                return resize(_rgb(image), size)
            mode = image.mode
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
        raise DataError(
            f"Every file of an image folder must be a whole image ({', '.join(FORMATS)}); {path} is not: {error}. "
            "Copy it again from its source, or remove it."
        ) from error
    raise DataError(f"Images must have 8 bits a channel; {path} has Pillow mode {mode!r}. Convert it to 8 bits first.")


def decode_all(paths: Sequence[Path | str], size: int, title: str) -> UInt8[np.ndarray, "n size size 3"]:
    """The pixels of many files, in order, decoded by a pool of threads (Pillow's decoders release the GIL).

    Raises:
        DataError: as `decode`, for one of the files that fail.
    """
    images = np.empty((len(paths), size, size, 3), np.uint8)

    def fill(start: int) -> None:
        for offset, path in enumerate(paths[start : start + CHUNK]):
            images[start + offset] = decode(path, size)

    starts = range(0, len(paths), CHUNK)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        try:
            done: Iterator[None] = pool.map(fill, starts)
            for _ in watched(done, total=len(starts), title=title):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images
