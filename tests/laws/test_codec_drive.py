"""Laws of drive: signs of a rotation and one scale; its error is known exactly, its bias is measured."""

import math
import struct
from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest
import torch
from frames import crossed, drive_bits, framed, reason, with_payload
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import hadamard

from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.drive import blocks, pack_drive, unpack_drive
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.layout import Slot

Array = NDArray[np.float64]

COUNTS = st.integers(0, 3_000) | st.sampled_from([65_535, 65_536, 65_537, 100_000, 131_072, 131_073, 200_000])


VECTORS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "cubes": lambda rng, size: rng.standard_normal(size) ** 3,
    "spikes": lambda rng, size: np.r_[1.0, 0.9, np.zeros(size - 2)],
}


def drawn(kind: str, size: int, number: int = 0) -> Array:
    return VECTORS[kind](stream(number, "vector"), size)


def arrived(x: Array, seed: int) -> Array:
    """Through the codec itself."""
    slot = Slot(x.shape, setup=struct.pack("<Q", seed))
    return unpack_drive(memoryview(pack_drive(x.astype(np.float32), slot)), slot).astype(np.float64)


def by_matrices(x: Array, turns: int, count: int) -> Array:
    """Route two: R as a dense product of Hadamard matrices and drawn signs, `count` times over."""
    H, rng = hadamard(x.size) / np.sqrt(x.size), stream(3, "signs", turns, x.size)
    signs = 1.0 - 2.0 * rng.integers(0, 2, (turns, count, x.size))
    y: Array = np.broadcast_to(x, (count, x.size))
    for s in signs:
        y = (y * s) @ H
    z: Array = np.sign(y) * (x @ x / np.abs(y).sum(axis=1, keepdims=True))
    for s in signs[::-1]:
        z = z @ H * s
    return z


def bias_squared(draws: Array, x: Array) -> float:
    """||E[decoded] - x||^2 / ||x||^2, less what the mean of so many draws is off by itself; at 0 it may fall below."""
    spread = np.mean(np.sum((draws - x) ** 2, axis=1)) / len(draws)
    return float((np.sum((draws.mean(axis=0) - x) ** 2) - spread) / (x @ x))


@given(COUNTS)
def test_blocks_are_powers_of_two_and_no_cut_has_fewer_bits(count: int) -> None:
    sizes = blocks(count)
    assert all(size & (size - 1) == 0 and 64 <= size <= 65_536 for size in sizes)
    assert sum(sizes[:-1]) < count <= sum(sizes) if count else sizes == ()
    if count <= 3_000:
        assert sum(32 + size for size in sizes) == drive_bits(count)


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("kind", VECTORS)
def test_the_error_is_what_the_rotation_says(kind: str, size: int) -> None:
    """||decoded - x||^2 = (||x||^2 n / ||R x||_1^2 - 1) ||x||^2; as scale * sqrt(n) = ||decoded||, that is:"""
    x = drawn(kind, size)
    for seed in range(20):
        back = arrived(x, seed)
        energy = x @ x
        assert np.sum((back - x) ** 2) == pytest.approx(back @ back - energy, rel=1e-5)
        assert back @ x == pytest.approx(energy, rel=1e-5)  # every decoded vector has x's whole length along x


@pytest.mark.parametrize("size", [64, 512])
@pytest.mark.parametrize("kind", VECTORS)
def test_the_mean_error_is_pi_halves_less_one(kind: str, size: int) -> None:
    x = drawn(kind, size)
    errors = [np.sum((arrived(x, seed) - x) ** 2) / (x @ x) for seed in range(300)]
    assert np.mean(errors) == pytest.approx(np.pi / 2 - 1, abs=0.05)


MEASURED = [  # kind, block, turns, at least, at most: the figures that fed_lorac/wire/codecs/drive.py states
    ("normal", 64, 1, 0.005, 0.02),
    ("normal", 64, 2, 0.0, 0.005),
    ("cubes", 64, 1, 0.08, 0.2),
    ("cubes", 64, 2, 0.0, 0.01),
    ("spikes", 64, 1, 0.89, 0.91),
    ("spikes", 64, 2, 0.07, 0.11),
    ("spikes", 512, 1, 0.89, 0.91),
    ("spikes", 512, 2, 0.0, 0.015),
]


@pytest.mark.parametrize(("kind", "size", "turns", "least", "most"), MEASURED)
def test_the_bias_is_what_is_stated_and_two_turns_have_less(
    kind: str, size: int, turns: int, least: float, most: float
) -> None:
    vectors = [drawn(kind, size, number) for number in range(1 if kind == "spikes" else 8)]
    squares: list[float] = [bias_squared(by_matrices(x, turns, 320_000 // size), x) for x in vectors]
    assert least <= math.sqrt(max(0.0, fmean(squares))) <= most


@pytest.mark.parametrize(("kind", "most"), [("normal", 0.04), ("cubes", 0.04), ("spikes", 0.13)])
def test_the_codec_itself_is_no_more_biased(kind: str, most: float) -> None:
    x = drawn(kind, 64)
    assert bias_squared(np.stack([arrived(x, seed) for seed in range(1_000)]), x) < most**2


@pytest.mark.parametrize("shape", [(2, 48), (48, 2), (10, 64), (7,), (), (0, 3), (70_000,), (3, 5, 7, 2)])
def test_any_shape_is_cut_filled_up_and_comes_back(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    back = crossed({"x": x}, "drive")["x"]
    assert back.shape == x.shape
    count = x.numel()
    assert inspect(framed({"x": x}, "drive")).payload_bytes == 8 + drive_bits(count) // 8
    if count > 500:
        assert float((back - x).norm() ** 2 / x.norm() ** 2) < 0.7


def test_tensors_of_a_frame_are_turned_apart_and_frames_too() -> None:
    x = torch.randn(96, generator=torch.Generator().manual_seed(0))
    back = crossed({"a": x, "b": x}, "drive")
    assert not torch.equal(back["a"], back["b"])
    assert not torch.equal(back["a"], crossed({"a": x}, "drive", seed=1)["a"])


def test_nothing_arrives_as_nothing_and_the_tiniest_as_no_more_than_tiny() -> None:
    assert torch.equal(crossed({"x": torch.zeros(100)}, "drive")["x"], torch.zeros(100))
    assert torch.equal(crossed({"x": -torch.zeros(100)}, "drive")["x"], torch.zeros(100))
    tiny = torch.full((64,), 1e-45)
    assert float(crossed({"x": tiny}, "drive")["x"].abs().max()) < 1e-43
    huge = torch.full((100,), 2.0**94)
    assert crossed({"x": huge}, "drive")["x"].isfinite().all()


X = {"x": (70,)}  # one block of 128: a scale and 16 bytes of signs
SEED = bytes(8)
FORGED = {
    "half a seed": (SEED[:4], "malformed table"),
    "a negative scale": (SEED + struct.pack("<f", -1.0) + bytes(16), "malformed payload"),
    "a scale of -0": (SEED + struct.pack("<f", -0.0) + bytes(16), "malformed payload"),
    "an infinite scale": (SEED + struct.pack("<f", np.inf) + bytes(16), "malformed payload"),
    "a scale that is no number": (SEED + struct.pack("<f", np.nan) + bytes(16), "malformed payload"),
    "signs of nothing": (SEED + struct.pack("<f", 0.0) + bytes([1] + [0] * 15), "malformed payload"),
    "a sum beyond float32": (SEED + struct.pack("<f", 3.4e38) + bytes([7] * 16), "non-finite"),
    "a byte too few": (SEED + struct.pack("<f", 1.0) + bytes(15), "malformed table"),
    "a byte too many": (SEED + struct.pack("<f", 1.0) + bytes(17), "malformed table"),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_packer_writes_is_refused(what: str) -> None:
    payload, why = FORGED[what]
    assert reason(with_payload("drive", X, payload)) == why
