"""Laws of topk: the largest values, exactly; the smaller way to say where; what is left out is bounded."""

import struct
from math import ceil

import numpy as np
import pytest
import torch
from frames import crossed, framed, reason, with_payload
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fed_lorac.errors import FrameError
from fed_lorac.wire.frame import inspect, payload_bytes

vectors = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32))
shares = st.sampled_from([0.001, 0.05, 0.25, 0.5, 0.9, 1.0])


@given(vectors, shares)
def test_what_is_left_out_is_at_most_its_share_of_the_energy(x: NDArray[np.float32], share: float) -> None:
    d, kept = x.size, ceil(round(share * x.size, 6))
    back = crossed({"x": torch.from_numpy(x)}, "topk", topk_share=share)["x"].numpy()
    wide = x.astype(np.float64)
    assert np.sum((wide - back) ** 2) <= (1 - kept / d) * np.sum(wide**2) * (1 + 1e-12)


def test_the_bound_is_reached_where_all_values_are_alike_and_the_bias_is_all_that_is_left_out() -> None:
    x = torch.full((40,), -2.0)
    back = crossed({"x": x}, "topk", topk_share=0.25)["x"]
    assert back.tolist() == [-2.0] * 10 + [0.0] * 30  # the first of equals, whatever the seed: E[decoded] - x
    assert float((x - back).norm() ** 2 / x.norm() ** 2) == pytest.approx(1 - 10 / 40)
    assert torch.equal(back, crossed({"x": x}, "topk", seed=7, topk_share=0.25)["x"])


@given(vectors, shares)
def test_it_sends_the_largest_and_sends_them_exactly(x: NDArray[np.float32], share: float) -> None:
    back = crossed({"x": torch.from_numpy(x)}, "topk", topk_share=share)["x"].numpy()
    by_hand = sorted(range(x.size), key=lambda i: (-abs(x[i]), i))[: ceil(round(share * x.size, 6))]
    expected = np.zeros_like(x)
    expected[by_hand] = x[by_hand]
    assert back.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("count", "share", "places_bytes"),
    [
        (1_000, 0.05, 63),  # 50 indices of 10 bits
        (1_000, 0.1, 125),  # as many bits either way: 125 bytes
        (1_000, 0.2, 125),  # a bitmap
        (1_024, 0.05, 65),  # 52 of 10 bits
        (1_025, 0.05, 72),  # 52 of 11 bits
        (1_000, 0.0011, 3),  # 2 of 10 bits: the share is kept to a millionth
        (1, 0.001, 0),  # where one value stands needs no saying
        (0, 0.5, 0),
    ],
)
def test_places_are_a_bitmap_or_indices_whichever_is_smaller(count: int, share: float, places_bytes: int) -> None:
    state = {"x": torch.randn(count, generator=torch.Generator().manual_seed(0))}
    kept = ceil(round(share * count, 6))
    billed = inspect(framed(state, "topk", topk_share=share)).payload_bytes
    assert billed == payload_bytes(state, "topk", share) == 4 + places_bytes + 4 * kept
    assert int(torch.count_nonzero(crossed(state, "topk", topk_share=share)["x"])) == kept


@pytest.mark.parametrize("share", [0.0, 0.0009, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(FrameError, match=r"0\.001 to 1"):
        framed({"x": torch.ones(3)}, "topk", topk_share=share)


def values(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


def share(millionths: int) -> bytes:
    return struct.pack("<I", millionths)


X16, X100 = {"x": (16,)}, {"x": (100,)}  # a bitmap of 2 bytes under 1/4; 2 indices of 7 bits under 1/50
FORGED = {
    "no share": (X16, b"\0\0", "malformed table"),
    "a share too small": (X16, share(999) + b"\x80\0" + values(1), "malformed payload"),
    "a share above 1": (X16, share(1_000_001) + b"\xff\xff" + values(*[1] * 16), "malformed payload"),
    "a bitmap of too few": (X16, share(250_000) + b"\xe0\0" + values(4, 3, 2, 1), "malformed payload"),
    "a bitmap of too many": (X16, share(250_000) + b"\xf8\0" + values(4, 3, 2, 1), "malformed payload"),
    "a zero where an earlier one was due": (
        X16,
        share(250_000) + b"\x00\x0f" + values(1, 2, 0, 0),
        "malformed payload",
    ),
    "one place twice": (X100, share(20_000) + bytes([0b00000100, 0b00001000]) + values(1, 2), "malformed payload"),
    "places that descend": (X100, share(20_000) + bytes([0b00010100, 0b00010000]) + values(1, 2), "malformed payload"),
    "a place beyond the end": (X100, share(20_000) + b"\xff\xfc" + values(1, 2), "malformed payload"),
    "padding that is not zero": (
        X100,
        share(20_000) + bytes([0b00000100, 0b00001101]) + values(1, 2),
        "malformed payload",
    ),
    "an infinite value": (X16, share(250_000) + b"\xf0\0" + values(4, 3, 2, np.inf), "non-finite"),
    "a value that is no number": (X16, share(250_000) + b"\xf0\0" + values(4, 3, 2, np.nan), "non-finite"),
    "a value too few": (X16, share(250_000) + b"\xf0\0" + values(4, 3, 2), "malformed table"),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_packer_writes_is_refused(what: str) -> None:
    shapes, payload, why = FORGED[what]
    assert reason(with_payload("topk", shapes, payload)) == why


def test_a_small_frame_cannot_ask_for_much_memory() -> None:
    assert reason(with_payload("topk", {"x": (4_000_000_000,)}, share(1) + b"\0" * 20)) == "malformed payload"
    assert reason(with_payload("topk", {"x": (4_000_000_000,)}, share(1_000) + b"\0" * 20)) == "malformed table"
