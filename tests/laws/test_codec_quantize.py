"""Laws of int8, int4 and int2: unbiased, within one step, a grid for each rank component."""

import struct
import warnings

import numpy as np
import pytest
import torch
from frames import BASE, crossed, reason, same, with_payload
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.quantize import pack_rounded, unpack_rounded
from fed_lorac.wire.frame import component_axis, decode, payload_bytes
from fed_lorac.wire.layout import Slot
from fed_lorac.wire.refusals import RefusedFrameError

BITS = pytest.mark.parametrize("dtype", ["int8", "int4"])
TOP = {"int8": 255, "int4": 15, "int2": 3}

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


def draws(value: Tensor, name: str, dtype: str, count: int) -> NDArray[np.float64]:
    """What arrives, `count` times over, from one generator."""
    values, bits = value.numpy(), int(dtype[3:])
    slot, rng = Slot(values.shape, axis=component_axis(name, values.shape)), stream(5, "draws", name)
    data = (memoryview(pack_rounded(values, slot, rng, bits)) for _ in range(count))
    return np.stack([unpack_rounded(one, slot, bits) for one in data]).astype(np.float64)


def steps(values: NDArray[np.float32], name: str, dtype: str) -> NDArray[np.float64]:
    """The bound on a step, for each value: (1 + 2^-7) (max - min + 2^-7 |min|) / L, from bf16's eight bits."""
    wide = values.astype(np.float64)
    if wide.ndim > 1 and values.size >= 16 * values.shape[component_axis(name, values.shape)]:
        along = component_axis(name, values.shape) % wide.ndim
        others = tuple(axis for axis in range(wide.ndim) if axis != along)
        low, high = wide.min(axis=others, keepdims=True), wide.max(axis=others, keepdims=True)
    else:
        low, high = wide.min(), wide.max()
    return np.broadcast_to((1 + 2**-7) * (high - low + 2**-7 * np.abs(low)) / TOP[dtype] + 2.0**-126, wide.shape)


@BITS
@given(value=matrices, name=st.sampled_from(["c.A", "c.B", "c.weight"]), seed=st.integers(0, 9))
def test_every_value_is_less_than_a_step_away(value: NDArray[np.float32], name: str, seed: int, dtype: str) -> None:
    back = crossed({name: torch.from_numpy(value)}, dtype, seed=seed)[name].numpy().astype(np.float64)
    limit = steps(value, name, dtype) + 2.0**-23 * np.abs(value)  # decoded to float32 at last
    assert (np.abs(back - value) <= limit).all()


@BITS
def test_it_is_unbiased_and_its_variance_is_bounded(dtype: str) -> None:
    count, value = 2_000, torch.randn(3, 17, generator=torch.Generator().manual_seed(1))
    for name in ("c.A", "c.B", "c.weight"):
        found, step = draws(value, name, dtype, count), steps(value.numpy(), name, dtype)
        off = np.abs(found.mean(axis=0) - value.numpy())
        assert (off <= 6 * step / 2 / np.sqrt(count)).all()  # six standard errors, at most step / 2 each
        assert (found.var(axis=0) <= 1.1 * step**2 / 4).all()
        assert found.std(axis=0).max() > 0.3 * step.min()  # random indeed


@BITS
def test_a_product_of_two_rounded_factors_is_unbiased(dtype: str) -> None:
    g, count = torch.Generator().manual_seed(2), 1_000
    A, B = torch.randn(2, 5, generator=g), torch.randn(4, 2, generator=g)
    names = {"c.A": A, "c.B": B}
    pairs = [crossed(names, dtype, seed=seed) for seed in range(count)]
    products = np.stack([(p["c.B"].double() @ p["c.A"].double()).numpy() for p in pairs])
    off = products.mean(axis=0) - (B.double() @ A.double()).numpy()
    assert (np.abs(off) <= 6 * products.std(axis=0) / np.sqrt(count)).all()


@BITS
@pytest.mark.parametrize("bits", [0x7F81, 0xFFFF, 0x7F80], ids=hex)  # NaNs that signal and do not, and infinity
def test_a_forged_grid_is_refused_without_a_warning(dtype: str, bits: int) -> None:
    slot, width = Slot((2, 16), axis=0), TOP[dtype].bit_length()
    for at in range(4):
        grid = np.zeros(4, "<u2")
        grid[at] = bits
        with warnings.catch_warnings(), pytest.raises(RefusedFrameError, match="NaN or infinite"):
            warnings.simplefilter("error")
            unpack_rounded(memoryview(grid.tobytes() + bytes(32 * width // 8)), slot, width)


@BITS
def test_rounding_to_nearest_would_be_biased_where_this_is_not(dtype: str) -> None:
    value = torch.cat([torch.tensor([0.0, 1.0]), torch.full((1_000,), 0.3 / TOP[dtype])])
    found = crossed({"v": value}, dtype)["v"][2:].double().numpy()
    assert abs(found.mean() - value[2]) < 6 * found.std() / np.sqrt(1_000)
    assert np.unique(found).size == 2


@pytest.mark.parametrize(
    ("name", "shape", "groups"),
    [
        ("c.A", (2, 48), 2),
        ("c.B", (48, 2), 2),
        ("c.A", (60, 48), 60),
        ("c.A", (4, 3, 2, 3), 2),
        ("c.B", (4, 3, 3, 2), 2),
        ("fc.weight", (10, 64), 10),
        ("conv1.weight", (16, 3, 3, 3), 16),
        ("c.core", (4, 4), 1),
        ("c.atoms", (6, 3, 3), 1),
        ("c.A", (2, 15), 1),
        ("c.A", (2, 16), 2),
        ("bn.bias", (7,), 1),
        ("temperature", (), 1),
        ("empty.weight", (0, 3), 0),
        ("empty.weight", (3, 0), 0),
    ],
)
def test_each_rank_component_of_16_values_or_more_has_its_own_grid(
    name: str, shape: tuple[int, ...], groups: int
) -> None:
    state = {name: torch.ones(shape)}
    assert payload_bytes(state, "int8") == 4 * groups + int(np.prod(shape))
    assert payload_bytes(state, "int4") == 4 * groups + (int(np.prod(shape)) + 1) // 2
    if groups > 1:  # a large component leaves the fine grid of the others alone
        along = component_axis(name, shape)
        scaled = torch.rand(shape, generator=torch.Generator().manual_seed(0)).movedim(along, 0)
        scaled[0] *= 1e6
        back = crossed({name: scaled.movedim(0, along)}, "int8")[name].movedim(along, 0)
        assert (back - scaled)[1:].abs().max() < 1.1 / 255


@BITS
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -3.0, 2.0**-140, 1e38])
def test_what_lies_on_the_grid_arrives_as_it_is(value: float, dtype: str) -> None:
    held = torch.tensor(value).bfloat16().float().expand(3, 5).clone()
    assert torch.equal(crossed({"x": held}, dtype)["x"], held)
    assert torch.equal(crossed({"x": torch.zeros(4, 0)}, dtype)["x"], torch.zeros(4, 0))


def test_the_bytes_are_pinned() -> None:
    grids = struct.pack("<HHHH", 0x3F80, 0xBF80, 0x3F80, 0x0000)  # two rows: from 1 in steps of 1, from -1 in none
    state = {"x.A": torch.tensor([[2.0, 3.0] + [1.0] * 14, [-1.0] * 16])}
    assert same(decode(with_payload("int4", {"x.A": (2, 16)}, grids + bytes([0x21] + [0] * 15)), base=BASE), state)


TWO = {"x": (2, 16)}  # two grids of four bytes, then codes
FORGED = {
    "an infinite zero point": (TWO, "int8", struct.pack("<4H", 0x7F80, 0, 0, 0) + bytes(32), "malformed payload"),
    "a step that is no number": (TWO, "int8", struct.pack("<4H", 0, 0, 0x7FC0, 0) + bytes(32), "malformed payload"),
    "a negative step": (TWO, "int8", struct.pack("<4H", 0, 0, 0xBF80, 0) + bytes(32), "malformed payload"),
    "a step of -0": (TWO, "int4", struct.pack("<4H", 0, 0, 0x8000, 0) + bytes(16), "malformed payload"),
    "a zero point of -0": (TWO, "int4", struct.pack("<4H", 0, 0x8000, 0, 0) + bytes(16), "malformed payload"),
    "codes without a step": (TWO, "int8", bytes(8) + bytes([0, 0, 1] + [0] * 29), "malformed payload"),
    "half a byte too much": ({"x": (3,)}, "int4", struct.pack("<2H", 0, 0x3F80) + b"\x11\x11", "malformed payload"),
    "a grid beyond float32": (TWO, "int8", struct.pack("<4H", 0, 0, 0x7F7F, 0) + bytes([255] + [0] * 31), "non-finite"),
    "a byte too few": (TWO, "int8", bytes(39), "malformed table"),
    "a byte too many": (TWO, "int4", bytes(25), "malformed table"),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_packer_writes_is_refused(what: str) -> None:
    shapes, dtype, payload, why = FORGED[what]
    assert reason(with_payload(dtype, shapes, payload)) == why
