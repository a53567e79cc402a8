"""scikit-learn's 1,797 scanned digits, as small colour images: the data set that is always there."""

from importlib.metadata import version

import numpy as np
from PIL import Image

from fed_lorac.data.decode import decode_settings, resize
from fed_lorac.data.progress import watched
from fed_lorac.runtime.source import source_of

__all__ = ["read", "stamp"]

FULL = 16  # the scans' brightest value


def stamp(size: int) -> str:
    """A text that changes with the scans, which come with scikit-learn: its version."""
    return f"scikit-learn {version('scikit-learn')}, {decode_settings(size)}, {source_of(__name__)}"


def read(size: int) -> dict[str, np.ndarray]:
    """The 8 x 8 scans, 0 to 16 stretched to 0 to 255, upscaled, grey in all three channels."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  (slow to import, and a cached start does without)

    scans = load_digits()
    grey = np.rint(scans.images * (255 / FULL)).astype(np.uint8)
    images = [
        resize(Image.fromarray(scan).convert("RGB"), size)
        for scan in watched(grey, total=len(grey), title="upscaling digits")
    ]
    classes = np.array([str(name) for name in scans.target_names])
    return {"images": np.stack(images), "labels": scans.target.astype(np.int64), "classes": classes}
