"""Frost textures: where they come from. Knows files and pictures; not severities.

The five pictures that CIFAR-10-C was made with travel in the package `imagecorruptions` (the extra `frost`). They are
read from its folder without importing it. Without the package, five procedural stand-ins take their place: the same
sizes, mean colours, spreads and roughness, but no ice crystals. Results with stand-ins must not be compared with
published ones, so a run records `frost_textures()`.
"""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fed_lorac.seeds import stream

__all__ = ["frost_textures", "texture_fingerprint", "textures_for"]

Texture = UInt8[np.ndarray, "rows columns 3"]

_FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
_SHRINK = 5  # CIFAR-10-C scales by 0.2, without smoothing: the middle pixel of every five
# Rows, columns, mean red, green, blue, and standard deviation of each picture at that scale.
_LOOKS = (
    (120, 180, (78, 149, 166), 20),
    (63, 112, (201, 205, 215), 22),
    (63, 112, (201, 205, 215), 22),
    (70, 105, (138, 153, 165), 29),
    (99, 132, (112, 123, 135), 43),
)
_ROUGHNESS = 0.5  # amplitude falls as 1 / frequency ** roughness


def _folder() -> Path | None:
    found = find_spec("imagecorruptions")
    places = found.submodule_search_locations if found else None
    folders = [Path(place) / "frost" for place in places or ()]
    return next((folder for folder in folders if all((folder / name).is_file() for name in _FILES)), None)


def frost_textures() -> str:
    """Which textures `frost` uses here: "imagecorruptions" (the real ones) or "stand-in"."""
    return "imagecorruptions" if _folder() else "stand-in"


def texture_fingerprint() -> str:
    """Which textures, to the byte. Stand-ins are made by this file, so their name is enough beside its source."""
    folder = _folder()
    return _hashed(folder) if folder else "stand-in"


@cache
def _hashed(folder: Path) -> str:
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _FILES)).hexdigest()[:16]


def _picture(path: Path) -> Texture:
    with Image.open(path) as picture:
        whole = np.asarray(picture.convert("RGB"))
    middle = _SHRINK // 2
    return np.ascontiguousarray(whole[middle::_SHRINK, middle::_SHRINK])


def _stand_in(index: int) -> Texture:
    rows, columns, colour, spread = _LOOKS[index]
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(stream(0, "frost", index).standard_normal((rows, columns)))
    field = np.fft.irfft2(noise / frequency**_ROUGHNESS, (rows, columns))
    field *= spread / field.std()
    return np.clip(np.asarray(colour) + field[..., None], 0, 255).astype(np.uint8)


@cache
def _textures(folder: Path | None) -> tuple[Texture, ...]:
    return tuple(_picture(folder / name) if folder else _stand_in(i) for i, name in enumerate(_FILES))


def textures_for(height: int, width: int) -> tuple[Texture, ...]:
    """The five textures, each larger than `height` x `width`: a smaller one is enlarged, at its own proportions."""
    return _fitting(_folder(), height, width)


@cache
def _fitting(folder: Path | None, height: int, width: int) -> tuple[Texture, ...]:
    fitting = []
    for texture in _textures(folder):
        rows, columns = texture.shape[:2]
        factor = max(1.0, (height + 1) / rows, (width + 1) / columns)
        size = (int(np.ceil(columns * factor)), int(np.ceil(rows * factor)))
        grown = texture if factor == 1 else np.asarray(Image.fromarray(texture).resize(size, Image.Resampling.BILINEAR))
        fitting.append(grown)
    return tuple(fitting)
