"""Named random streams. Knows one seed and names; not what they are drawn for.

A stream depends on its names alone, so adding a camera, a round or a worker never shifts another stream.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["layers_draw_from", "stream", "torch_stream"]


def _key(seed: int, names: tuple[str | int, ...]) -> int:
    # repr() tells 1 from "1" and ("a", "b") from ("ab",); sha256 makes the streams independent of each other.
    return int.from_bytes(hashlib.sha256(repr((seed, names)).encode()).digest(), "little")


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The NumPy generator of the stream called `names`: `stream(seed, "camera", 7, "round", 3)`."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(_key(seed, names))))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """The same stream for PyTorch, on the CPU (draw there and move: a GPU's generator gives other numbers)."""
    return torch.Generator().manual_seed(_key(seed, names) % (1 << 63))


@contextmanager
def layers_draw_from(rng: np.random.Generator, device: torch.device) -> Iterator[None]:
    """While open, layers that draw, as dropout does, draw from a stream of their own beside `rng`, which stays where it
    is; they know no generator but PyTorch's global one, which is put back in the end."""
    sequence = rng.bit_generator.seed_seq
    if not isinstance(sequence, np.random.SeedSequence):
        raise TypeError(f"A stream comes from a seed; this generator's is {type(sequence).__name__}.")
    own = np.random.SeedSequence(sequence.entropy, spawn_key=(*sequence.spawn_key, 0))
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(int(own.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield
