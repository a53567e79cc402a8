"""Small image folders for reported inputs: one colour a class, so that a tiny network can tell them apart."""

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["image_folder"]


def image_folder(root: Path, classes: tuple[str, ...] = ("ant", "bee"), images: int = 40, side: int = 16) -> Path:
    """`root/<class>/NN.png`: noise around a colour of each class's own."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        rng = np.random.default_rng(label)
        colour = rng.integers(40, 216, 3)
        for number in range(images):
            pixels = np.clip(colour + rng.normal(0, 20, (side, side, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:02}.png")
    return root
