"""How many images a second each corruption makes: `python benchmarks/corruptions.py [--json] [--images N]`.

One batch of synthetic 32 x 32 images, severities 1, 3 and 5, the best of three runs each, in one process. Set
OMP_NUM_THREADS=1 to keep matrix products on one core.
"""

from functools import partial
from typing import Any

import numpy as np
from common import arguments, deliver, header, say, seconds_of

from fed_lorac.data.corruptions import CORRUPTIONS, corrupt, frost_textures
from fed_lorac.seeds import stream

SEVERITIES = (1, 3, 5)
REPEATS = 3


def scenes(count: int) -> np.ndarray:
    coarse = stream(0, "benchmark").integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def images_per_s(images: np.ndarray, name: str, severity: int) -> int:
    seconds = [seconds_of(partial(corrupt, images, name, severity, stream(r))) for r in range(REPEATS)]
    return round(len(images) / min(seconds))


def measured(count: int) -> dict[str, Any]:
    images, found = scenes(count), {}
    say(f"{'images per second':18}" + "".join(f"  severity {s}" for s in SEVERITIES))
    for name in CORRUPTIONS:
        found[name] = {s: images_per_s(images, name, s) for s in SEVERITIES}
        say(f"{name:18}" + "".join(f"{rate:12,}" for rate in found[name].values()))
    return {"images_per_s": found, "frost_textures": frost_textures(), "images": count}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=1000, help="images in the batch (default 1000)")
    args = parser.parse_args()
    head = header(packages=("fed-lorac", "numpy", "scipy", "pillow"))
    deliver(measured(args.images), head, as_json=args.json)


if __name__ == "__main__":
    main()
