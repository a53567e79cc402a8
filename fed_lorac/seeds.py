"""Named random streams. Knows one seed and names; not what they are drawn for.

A stream depends on its names alone, so adding a camera, a round or a worker never shifts another stream.
"""

import hashlib

import numpy as np
import torch

__all__ = ["stream", "torch_stream"]


def _key(seed: int, names: tuple[str | int, ...]) -> int:
    # repr() tells 1 from "1" and ("a", "b") from ("ab",); sha256 makes the streams independent of each other.
    return int.from_bytes(hashlib.sha256(repr((seed, names)).encode()).digest(), "little")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy generator of the stream called `names`: `stream(seed, "camera", 7, "round", 3)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(_key(seed, names))))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """The same stream for PyTorch, on the CPU (draw there and move: a GPU's generator gives other numbers)."""
    return torch.Generator().manual_seed(_key(seed, names) % (1 << 63))
