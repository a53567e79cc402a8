"""Corruptions: the weather and wear of CIFAR-10-C, for whole batches. Knows names and severities; not data sets.

The 19 corruptions of Hendrycks and Dietterich ("Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019) with the constants CIFAR-10-C itself was made with, which are not ImageNet-C's.
Lengths are in pixels, as there, except in `elastic_transform` and `pixelate`, which scale with the image.
"""

import sys
from collections.abc import Callable, Mapping

import numpy as np
import PIL
import scipy  # its parts are loaded when they are first asked for: images that are kept need none

from fed_lorac import registry
from fed_lorac.data.corruptions._pixels import Images
from fed_lorac.data.corruptions._textures import frost_textures, texture_fingerprint
from fed_lorac.errors import ConfigError, DataError, FedLoracError, one_line
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.source import libraries_of, source_of
from fed_lorac.seeds import stream

__all__ = [
    "CORRUPTIONS",
    "Corruption",
    "check_corruption",
    "corrupt",
    "corruption_fingerprint",
    "frost_textures",
]

Corruption = Callable[..., Images]
"""(images, severity, rng, **settings) -> corrupted images; built-in ones have no settings."""

CORRUPTIONS: dict[str, Corruption] = {
    name: registry.load(str(place)) for name, place in registry.CORRUPTIONS.built_in.items()
}

_CHUNK_PIXELS = 128 * 32 * 32  # worked on at once: bounds memory, and stays in the processor's cache


def corrupt(images: Images, name: str, severity: int, rng: np.random.Generator, **settings: object) -> Images:
    """A corrupted copy of `images`, uint8 (batch, height, width, 3), height and width multiples of 8.

    `name` is a key of CORRUPTIONS, or one of somebody else's, which may have `settings`; `severity` is 1 to 5. Each
    image gets randomness of its own from `rng`; the same state of `rng` gives the same bytes. Raises ConfigError (name,
    severity, rng, a corruption that keeps no contract) or DataError (images).
    """
    _check_choice(name, severity, rng)
    _check_images(images)
    if name not in CORRUPTIONS:
        return _of_others(images, name, int(severity), rng, settings)
    out = np.empty(images.shape, dtype=np.uint8)
    step = max(1, _CHUNK_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), step):
        chunk = np.ascontiguousarray(images[start : start + step])
        out[start : start + step] = CORRUPTIONS[name](chunk, int(severity), rng)
    return out


def _of_others(
    images: Images, name: str, severity: int, rng: np.random.Generator, settings: Mapping[str, object]
) -> Images:
    """All at once, on a copy: what somebody else's does to its argument, or keeps of a batch, is not ours to know."""
    try:
        made = registry.CORRUPTIONS.load(name)(np.array(images), severity, rng, **settings)
    except FedLoracError:
        raise
    except Exception as error:
        raise registry.CORRUPTIONS.broken(
            name, f"of {images.shape} at severity {severity}: {one_line(error)}"
        ) from error
    if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.shape != images.shape:
        came = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
        raise registry.CORRUPTIONS.broken(name, f"of uint8 {images.shape} it makes {came}")
    return made


def corruption_fingerprint(name: str, settings: Mapping[str, object] | None = None) -> str | None:
    """What decides a corruption's pixels besides the images and `rng`, as text: part of a cache key.

    The source of this package, the libraries it computes with, and frost's pictures; of somebody else's, the source of
    its package, the libraries that this imports, and the settings. None where the corruption, or anything in this
    package, has been replaced since it was imported, or has no source: what it depends on, nobody knows.
    """
    if name not in CORRUPTIONS and registry.CORRUPTIONS.is_outside(name):
        package, code = registry.CORRUPTIONS.package(name)
        made_by = f"{package} {code}, {sorted((settings or {}).items())}, {libraries_of(package)}"
        return None if code == "?" else made_by
    replaced = any(names.get(key) is not value for names, key, value in _AS_IMPORTED)
    if replaced or name not in _OURS or CORRUPTIONS[name] is not _OURS[name]:
        return None
    libraries = f"numpy {np.__version__}, scipy {scipy.__version__}, pillow {PIL.__version__}"
    textures = f", textures {texture_fingerprint()}" if name == "frost" else ""
    return f"corruptions {source_of(*_MODULES)}, {libraries}{textures}"


def _check_name(name: str) -> None:
    """Raise ConfigError unless there is such a corruption."""
    if registry.CORRUPTIONS.is_outside(name):
        registry.CORRUPTIONS.load(name)
    elif name not in CORRUPTIONS:
        near = did_you_mean(str(name), CORRUPTIONS) or f" They are {', '.join(CORRUPTIONS)}."
        raise ConfigError(f"A corruption must be one of CIFAR-10-C's {len(CORRUPTIONS)}; got {name!r}.{near}")


def check_corruption(name: str, size: tuple[int, int], **settings: object) -> None:
    """Raise ConfigError unless there is such a corruption and, where it is somebody else's, it works on an image of
    this height and width."""
    _check_name(name)
    if name not in CORRUPTIONS:
        corrupt(np.zeros((2, *size, 3), np.uint8), name, 1, stream(0, "tried out"), **settings)


def _check_choice(name: str, severity: int, rng: np.random.Generator) -> None:
    _check_name(name)
    if isinstance(severity, bool) or not isinstance(severity, int | np.integer) or not 1 <= severity <= 5:
        raise ConfigError(
            f"A severity must be a whole number from 1 to 5; got {severity!r}. For clean images use none."
        )
    if not isinstance(rng, np.random.Generator):
        raise ConfigError(
            f"Randomness must come from a numpy.random.Generator; got {type(rng).__name__}. "
            "Take one from fed_lorac.seeds.stream(seed, ...)."
        )


def _check_images(images: Images) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        came = getattr(images, "dtype", type(images).__name__)
        raise DataError(f"Images must be a NumPy array of uint8; got {came}. Scale to 0..255 and convert first.")
    if images.ndim != 4 or images.shape[3] != 3:
        raise DataError(f"Images must have the shape (batch, height, width, 3); got {images.shape}. Transpose first.")
    if any(side == 0 or side % 8 for side in images.shape[1:3]):
        raise DataError(
            f"Height and width must be multiples of 8; got {images.shape[1]} x {images.shape[2]}. Resize or crop first."
        )


_OURS = dict(CORRUPTIONS)
_MODULES = tuple(sorted(name for name in sys.modules if name == __name__ or name.startswith(f"{__name__}.")))
_AS_IMPORTED = [
    (names, name, value)
    for names in (vars(sys.modules[module]) for module in _MODULES)
    for name, value in tuple(names.items())
    if not name.startswith("__")
]
