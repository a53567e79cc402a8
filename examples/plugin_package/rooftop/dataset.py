"""A data set: discs, squares and crosses on a grey wall, drawn as they are asked for. It needs no files."""

from pathlib import Path

import numpy as np

from fed_lorac.data.dataset import Images

__all__ = ["shapes"]

CLASSES = ("disc", "square", "cross")


def shapes(root: Path, image_size: int, *, count: int = 600, seed: int = 0) -> Images:
    """So many images, as many of each class, the same for the same seed.

    Args:
        root: the folder in `data.root`; not used here.
        image_size: pixels a side.
        count: of images.
        seed: where places, sizes and shades are drawn from.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    rows, columns = np.mgrid[:image_size, :image_size]
    images = rng.normal(110, 12, (count, image_size, image_size, 3))
    for image, label in zip(images, labels, strict=True):
        y, x = rng.uniform(0.35, 0.65, 2) * image_size
        radius = rng.uniform(0.18, 0.3) * image_size
        dy, dx = np.abs(rows - y), np.abs(columns - x)
        inside = [np.hypot(dy, dx) < radius, np.maximum(dy, dx) < 0.85 * radius, np.minimum(dy, dx) < 0.3 * radius]
        within = inside[label] & (np.maximum(dy, dx) < radius)
        image[within] += rng.choice([-60, 60])
    return Images(images.clip(0, 255).round().astype(np.uint8), labels, CLASSES)
