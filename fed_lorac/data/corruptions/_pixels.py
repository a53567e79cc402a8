"""Pixels: between bytes and float32 grey levels (0 to 255). Knows number formats; not corruptions."""

import numpy as np
from jaxtyping import Float32, UInt8

__all__ = ["Images", "Levels", "Planes", "extremes", "from_levels", "from_planes", "to_levels", "to_planes"]

Images = UInt8[np.ndarray, "batch height width 3"]
Levels = Float32[np.ndarray, "batch height width channels"]
Planes = Float32[np.ndarray, "*batch height width"]

# CIFAR-10-C truncates where others round. What is whole in float64 may lie a hair below in float32: lift it over.
_SLACK = np.float32(1 / 2048)


def to_levels(images: Images) -> Levels:
    """Bytes as float32 grey levels, 0 to 255."""
    return images.astype(np.float32)


def from_levels(levels: Levels) -> Images:
    """Grey levels clipped to 0..255 and truncated, as CIFAR-10-C was stored."""
    return np.clip(levels + _SLACK, 0, 255).astype(np.uint8)


def to_planes(images: Images) -> Planes:
    """Bytes as float32 grey levels with the channel before the pixels: (batch, 3, height, width)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


def from_planes(planes: Planes) -> Images:
    """The way back from `to_planes`, clipped and truncated like `from_levels`."""
    return np.ascontiguousarray(from_levels(planes).transpose(0, 2, 3, 1))


def extremes(images: Images) -> tuple[Levels, Levels]:
    """Each pixel's darkest and brightest channel, in grey levels: (batch, height, width, 1) each."""
    red, green, blue = (images[..., channel : channel + 1] for channel in range(3))
    darkest, brightest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    return darkest.astype(np.float32), brightest.astype(np.float32)
