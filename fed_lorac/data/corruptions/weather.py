"""Weather: snow, frost, fog, light and spatter. Knows CIFAR-10-C's weather severities (in pixels, at any image size).

Every function: uint8 (batch, height, width, 3) in and out, severity 1 to 5, randomness from `rng` alone.
Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness", ICLR 2019, the constants for CIFAR-10-C.
"""

import numpy as np
from numpy.random import Generator

from fed_lorac.data.corruptions import _geometry as geometry
from fed_lorac.data.corruptions._liquid import relief
from fed_lorac.data.corruptions._motion import motion_blur
from fed_lorac.data.corruptions._pixels import Images, Planes, extremes, from_levels, to_levels
from fed_lorac.data.corruptions._plasma import plasma
from fed_lorac.data.corruptions._textures import textures_for

__all__ = ["brightness", "fog", "frost", "snow", "spatter"]

# Flakes' mean and spread, zoom, threshold, motion's radius and sigma, share of the unwhitened image.
_SNOW = (
    (0.10, 0.2, 1.00, 0.60, 8, 3.0, 0.95),
    (0.10, 0.2, 1.00, 0.50, 10, 4.0, 0.90),
    (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.90),
    (0.25, 0.3, 2.25, 0.60, 12, 6.0, 0.85),
    (0.30, 0.3, 1.25, 0.65, 14, 12.0, 0.80),
)
_SNOW_ANGLE_DEG = (-135.0, -45.0)
_FROST = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))  # share of the image, of the frost
_FOG = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))  # density, decay of the fractal
_BRIGHTNESS = (0.05, 0.10, 0.15, 0.20, 0.30)  # of full scale
# Drops' mean and spread, sigma, threshold, then water's strength or mud's sigma.
_WATER = {1: ((0.62, 0.1, 0.7, 0.70), 0.5), 2: ((0.65, 0.1, 0.8, 0.70), 0.5), 3: ((0.65, 0.3, 1.0, 0.69), 0.5)}
_MUD = {4: ((0.65, 0.1, 0.7, 0.69), 0.6), 5: ((0.65, 0.1, 0.5, 0.68), 0.6)}
_WATER_COLOUR = np.array((175, 238, 238), dtype=np.float32)
_MUD_COLOUR = np.array((63, 42, 20), dtype=np.float32)
_GREY = np.array((0.299, 0.587, 0.114), dtype=np.float32)
_SMALLEST_CLOUD = 32  # pixels


def _cut(planes: Planes, threshold: float) -> Planes:
    return np.where(planes < threshold, np.float32(0), planes)


def _flakes(images: Images, severity: int, rng: Generator) -> Planes:
    """Falling snow alone, in grey levels: large pixels of noise, smeared along each image's own wind."""
    mean, std, zoom, threshold, radius, sigma, _ = _SNOW[severity - 1]
    batch, height, width, _ = images.shape
    noise = mean + std * rng.standard_normal((batch, height, width), dtype=np.float32)
    rows, columns = geometry.zoom_operator(height, zoom), geometry.zoom_operator(width, zoom)
    layer = _cut(geometry.separable(noise, rows, columns), threshold)
    grey = np.floor(np.clip(layer, 0, 1) * 255)
    angle_deg = rng.uniform(_SNOW_ANGLE_DEG[0], _SNOW_ANGLE_DEG[1], len(images))
    return motion_blur(grey[:, None], radius, sigma, angle_deg)[:, 0]


def snow(images: Images, severity: int, rng: Generator) -> Images:
    """Whitened, with falling flakes laid over it twice, once upside down."""
    share = np.float32(_SNOW[severity - 1][6])
    levels = to_levels(images)
    white = (levels @ _GREY)[..., None] * np.float32(1.5) + np.float32(127.5)
    scene = share * levels + (1 - share) * np.maximum(levels, white)
    flakes = _flakes(images, severity, rng)
    return from_levels(scene + (flakes + flakes[:, ::-1, ::-1])[..., None])


def frost(images: Images, severity: int, rng: Generator) -> Images:
    """A random piece of a picture of frost laid over each image; which pictures, says `frost_textures()`."""
    share, ice = _FROST[severity - 1]
    batch, height, width, _ = images.shape
    textures = textures_for(height, width)
    which, place = rng.integers(0, len(textures), batch), rng.random((2, batch))
    pieces = np.empty((batch, 3, height, width), dtype=np.float32)
    for index, texture in enumerate(textures):
        rows, columns = texture.shape[:2]
        y, x = np.floor(place[:, which == index] * [[rows - height], [columns - width]]).astype(np.intp)
        windows = np.lib.stride_tricks.sliding_window_view(texture, (height, width), axis=(0, 1))
        pieces[which == index] = windows[y, x]
    return from_levels(np.float32(share) * to_levels(images) + np.float32(ice) * pieces.transpose(0, 2, 3, 1))


def fog(images: Images, severity: int, rng: Generator) -> Images:
    """A cloud of plasma mixed in, so that the brightest value keeps its place."""
    density, decay = _FOG[severity - 1]
    batch, height, width, _ = images.shape
    size = max(_SMALLEST_CLOUD, 1 << (max(height, width) - 1).bit_length())
    cloud = plasma(batch, size, decay, rng)[:, :height, :width, None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True).astype(np.float32)
    thick = np.float32(255 * density)
    return from_levels((to_levels(images) + thick * cloud) * (brightest / (brightest + thick)))


def brightness(images: Images, severity: int, rng: Generator) -> Images:
    """The value of HSV raised; draws nothing. At the same hue and saturation that scales the whole colour."""
    levels = to_levels(images)
    _, value = extremes(images)
    raised = np.minimum(value + np.float32(255 * _BRIGHTNESS[severity - 1]), 255)
    return from_levels(np.where(value > 0, levels * (raised / np.maximum(value, 1)), raised))


def _splashes(images: Images, drops: tuple[float, float, float, float], rng: Generator) -> Planes:
    mean, std, sigma, threshold = drops
    noise = mean + std * rng.standard_normal(images.shape[:3], dtype=np.float32)
    return _cut(geometry.blur(noise, sigma), threshold)


def _water(images: Images, severity: int, rng: Generator) -> Images:
    drops, strength = _WATER[severity]
    liquid = np.clip(_splashes(images, drops, rng) * 255, 0, 255).astype(np.int32)
    shine = liquid * relief(liquid)
    peak = shine.max(axis=(1, 2), keepdims=True)
    shine *= np.float32(strength) / np.where(peak > 0, peak, 1)
    return from_levels(to_levels(images) + shine[..., None] * _WATER_COLOUR)


def _mud(images: Images, severity: int, rng: Generator) -> Images:
    drops, sigma = _MUD[severity]
    wet = _splashes(images, drops, rng) > drops[3]
    cover = _cut(geometry.blur(wet.astype(np.float32), sigma), 0.8)[..., None]
    return from_levels(to_levels(images) * (1 - cover) + cover * _MUD_COLOUR)


def spatter(images: Images, severity: int, rng: Generator) -> Images:
    """Drops on the lens: water up to severity 3, mud above."""
    return (_water if severity in _WATER else _mud)(images, severity, rng)
