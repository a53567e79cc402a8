"""How many images a second each corruption makes: `python benchmarks/corruptions.py [--json] [--images N]`.

One batch of synthetic 32 x 32 images, severities 1, 3 and 5, the best of three runs each, in one process. Set
OMP_NUM_THREADS=1 to keep matrix products on one core.
"""

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import PIL
import scipy

from fed_lorac.data.corruptions import CORRUPTIONS, corrupt, frost_textures
from fed_lorac.seeds import stream

SEVERITIES = (1, 3, 5)
REPEATS = 3


def scenes(count: int) -> np.ndarray:
    coarse = stream(0, "benchmark").integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def images_per_s(images: np.ndarray, name: str, severity: int) -> int:
    seconds = []
    for repeat in range(REPEATS):
        start = time.perf_counter()
        corrupt(images, name, severity, stream(repeat))
        seconds.append(time.perf_counter() - start)
    return round(len(images) / min(seconds))


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())


def measure(count: int) -> dict[str, object]:
    images = scenes(count)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "pillow": PIL.__version__,
        },
        "frost_textures": frost_textures(),
        "images": count,
        "images_per_s": {name: {s: images_per_s(images, name, s) for s in SEVERITIES} for name in CORRUPTIONS},
    }


def table(result: dict[str, object]) -> str:
    rates = result.pop("images_per_s")
    assert isinstance(rates, dict)
    head = [f"{key}: {value}" for key, value in result.items()]
    columns = "".join(f"  severity {s}" for s in SEVERITIES)
    rows = [f"{name:18}" + "".join(f"{rate:12,}" for rate in row.values()) for name, row in rates.items()]
    return "\n".join([*head, "", f"{'images per second':18}{columns}", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--images", type=int, default=1000, help="images in the batch (default 1000)")
    args = parser.parse_args()
    result = measure(args.images)
    print(json.dumps(result, indent=2) if args.json else table(result))


if __name__ == "__main__":
    main()
