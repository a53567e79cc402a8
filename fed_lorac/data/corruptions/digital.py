"""Digital: contrast, colour, warping, and what storage does to a picture. Knows CIFAR-10-C's severities for these.

Every function: uint8 (batch, height, width, 3) in and out, severity 1 to 5, randomness from `rng` alone.
Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness", ICLR 2019, the constants for CIFAR-10-C.
"""

from io import BytesIO

import numpy as np
from jaxtyping import Float, Float32
from numpy.random import Generator
from PIL import Image

from fed_lorac.data.corruptions import _geometry as geometry
from fed_lorac.data.corruptions._pixels import Images, Levels, extremes, from_levels, to_levels

__all__ = ["contrast", "elastic_transform", "jpeg_compression", "pixelate", "saturate"]

_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
_SATURATE = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))  # factor, then what is added
_JPEG_QUALITY = (80, 65, 58, 50, 40)
_PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # of the height and width
# Shares of the image's shorter side: the displacement's reach, its sigma, the corners' reach.
_ELASTIC = ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))

Field = Float32[np.ndarray, "batch height width"]


def contrast(images: Images, severity: int, rng: Generator) -> Images:
    """Each channel drawn towards its image's mean; draws nothing."""
    levels = to_levels(images)
    mean = levels.mean(axis=(1, 2), keepdims=True)
    return from_levels((levels - mean) * np.float32(_CONTRAST[severity - 1]) + mean)


def saturate(images: Images, severity: int, rng: Generator) -> Images:
    """The saturation of HSV changed; draws nothing.

    At the same hue and value every channel's distance from the largest one grows with the saturation. Grey has no
    hue: HSV calls it red, and so does CIFAR-10-C where saturation is added.
    """
    factor, added = _SATURATE[severity - 1]
    levels = to_levels(images)
    darkest, value = extremes(images)
    chroma = value - darkest
    wanted = np.clip(chroma / np.maximum(value, 1) * np.float32(factor) + np.float32(added), 0, 1) * value
    colourless = np.array((0, 1, 1), dtype=np.float32)
    distance = np.where(chroma > 0, (value - levels) / np.maximum(chroma, 1), colourless)
    return from_levels(value - wanted * distance)


def jpeg_compression(images: Images, severity: int, rng: Generator) -> Images:
    """Through JPEG and back; draws nothing."""
    out = np.empty_like(images)
    for index, image in enumerate(images):
        stored = BytesIO()
        Image.fromarray(image).save(stored, "JPEG", quality=_JPEG_QUALITY[severity - 1])
        out[index] = np.asarray(Image.open(stored))
    return out


def pixelate(images: Images, severity: int, rng: Generator) -> Images:
    """Shrunk and enlarged again by boxes; draws nothing."""
    share = _PIXELATE[severity - 1]
    height, width = images.shape[1:3]
    small, box = (int(width * share), int(height * share)), Image.Resampling.BOX
    out = np.empty_like(images)
    for index, image in enumerate(images):
        out[index] = np.asarray(Image.fromarray(image).resize(small, box).resize((width, height), box))
    return out


def _affine(images: Images, reach: float, rng: Generator) -> Float[np.ndarray, "batch 3 2"]:
    """Where each image's pixel (x, y, 1) comes from, as the map that takes three moved corners back to their places."""
    height, width = images.shape[1:3]
    side = min(height, width) // 3
    corners = np.array([[side, side], [side, -side], [-side, -side]]) + np.array([width // 2, height // 2])
    moved = corners + rng.uniform(-reach, reach, (len(images), 3, 2))
    return np.linalg.solve(np.concatenate([moved, np.ones((len(images), 3, 1))], axis=2), corners[None])


def _stretched(images: Images, reach: float, rng: Generator) -> Levels:
    height, width = images.shape[1:3]
    back = _affine(images, reach, rng).astype(np.float32)[:, :, :, None, None]
    y, x = np.ogrid[:height, :width]
    from_x, from_y = (back[:, 0, k] * x.astype(np.float32) + back[:, 1, k] * y.astype(np.float32) for k in (0, 1))
    # OpenCV, which warped CIFAR-10-C, reads between pixels in steps of 1/32.
    from_y, from_x = (np.round(32 * place) / 32 for place in (from_y + back[:, 2, 1], from_x + back[:, 2, 0]))
    return geometry.bilinear(to_levels(images), from_y, from_x, "reflect")


def _displacement(images: Images, reach: float, sigma: float, rng: Generator) -> Field:
    noise = 2 * rng.random(images.shape[:3], dtype=np.float32) - 1
    return np.float32(reach) * geometry.blur(noise, sigma, mode="reflect", truncate=3.0)


def elastic_transform(images: Images, severity: int, rng: Generator) -> Images:
    """Stretched by a random affine map, then every pixel moved a little, neighbours alike."""
    height, width = images.shape[1:3]
    reach, sigma, corners = (share * min(height, width) for share in _ELASTIC[severity - 1])
    levels = _stretched(images, corners, rng)
    if reach > 0:
        y, x = np.ogrid[:height, :width]
        from_x = x.astype(np.float32) + _displacement(images, reach, sigma, rng)
        from_y = y.astype(np.float32) + _displacement(images, reach, sigma, rng)
        levels = geometry.bilinear(levels, from_y, from_x, "symmetric")
    return from_levels(levels)
