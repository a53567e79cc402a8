"""Laws of ternary: three values a group, the nearest such in least squares, and an error that feedback makes up for."""

import itertools
import math

import numpy as np
import pytest
import torch
from frames import crossed, framed, reason, with_payload
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.ternary import pack_ternary, ternary_bytes, unpack_ternary
from fed_lorac.wire.feedback import encode_with_feedback
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.layout import Slot

vectors = hnp.arrays(np.float32, st.integers(1, 6), elements=st.floats(-100, 100, width=16))
_ROUNDED = 2.0**-8
"""Relative: how far a scale may be from its bf16."""


def there_and_back(x: np.ndarray) -> np.ndarray:
    slot = Slot(x.shape)
    return unpack_ternary(memoryview(pack_ternary(x.astype(np.float32), slot)), slot).astype(np.float64)


@settings(max_examples=200)
@given(vectors)
def test_no_three_values_are_nearer(x: np.ndarray) -> None:
    """Against every pattern of -1, 0 and 1, each with the scale that is best for it."""
    norm = float((x.astype(np.float64) ** 2).sum())
    explained = 0.0
    for pattern in itertools.product((-1, 0, 1), repeat=len(x)):
        if any(pattern):
            t = np.array(pattern, np.float64)
            explained = max(explained, float(t @ x) ** 2 / float(t @ t))
    error = float(((x - there_and_back(x)) ** 2).sum())
    assert error == pytest.approx(norm - explained, abs=norm * _ROUNDED**2 + 1e-30)


@given(hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e3, 1e3, width=32)))
def test_the_error_is_below_the_norm_by_what_feedback_needs(x: np.ndarray) -> None:
    norm, error = (float((v.astype(np.float64) ** 2).sum()) for v in (x, x - there_and_back(x)))
    assert error <= (1 - 1 / len(x)) * norm + norm * _ROUNDED**2 + 1e-60
    back = there_and_back(x)
    assert len(set(np.abs(back[back != 0]))) <= 1 and (back * x >= 0).all()


@pytest.mark.parametrize(("count", "least", "most"), [(16, 0.12, 0.18), (144, 0.17, 0.2), (5_000, 0.185, 0.195)])
def test_normal_values_lose_what_the_docs_say(count: int, least: float, most: float) -> None:
    x = stream(0, "normal").standard_normal((400 if count < 1_000 else 20, count))
    errors = [((row - there_and_back(row)) ** 2).sum() / (row**2).sum() for row in x]
    assert least < np.mean(errors) < most
    s = np.abs(x).max(axis=1)  # TernGrad's, unbiased: E (s |x| - x^2) over x^2
    assert count == 16 or (s * np.abs(x).sum(axis=1) / (x**2).sum(axis=1) - 1).mean() > 1


def test_each_rank_component_has_a_scale_of_its_own() -> None:
    a = torch.stack([torch.full((20,), 3.0), torch.full((20,), -0.25)])
    back = crossed({"conv.A": a, "conv.B": a.T.contiguous()}, "ternary")
    assert torch.equal(back["conv.A"], a) and torch.equal(back["conv.B"], a.T)


@given(st.integers(0, 60), st.integers(1, 60))
def test_a_payload_is_two_bytes_a_group_and_a_byte_for_five_values(rows: int, columns: int) -> None:
    state = {"fc.weight": torch.ones(rows, columns)}
    groups = 0 if rows == 0 else rows if columns >= 16 else 1
    size = 2 * groups + math.ceil(rows * columns / 5)
    assert inspect(framed(state, "ternary")).payload_bytes == ternary_bytes(Slot((rows, columns))) == size


def test_what_feedback_keeps_arrives_in_the_end() -> None:
    """The mean of what has arrived comes to what was meant: what is owed stays bounded."""
    x = {"x": torch.from_numpy(stream(1, "x").standard_normal(300).astype(np.float32))}
    lost: dict[str, torch.Tensor] = {}
    off = []
    total = torch.zeros(300)
    from fed_lorac.wire.frame import decode

    for turn in range(1, 65):
        frame, lost = encode_with_feedback(x, lost, dtype="ternary", base="b", rng=stream(0, "f", turn), topk_share=0.1)
        total += decode(frame, base="b")["x"]
        off.append(float((total / turn - x["x"]).norm() / x["x"].norm()))
    assert off[-1] < 0.05 < off[0] and off[-1] < off[15] / 2


SCALE = np.array([1.0], "<f4").view("<u4").astype("<u4")[0] >> 16
ONE = int(SCALE).to_bytes(2, "little")


@pytest.mark.parametrize(
    "payload",
    [
        ONE + bytes([243, 0]),
        ONE + bytes([1, 3**4]),  # six values: the second byte has one
        ONE + bytes([0, 0]),
        bytes(2) + bytes([1, 0]),
        (0xBF80).to_bytes(2, "little") + bytes([1, 0]),
        (0x7FC0).to_bytes(2, "little") + bytes([1, 0]),
        (0x8000).to_bytes(2, "little") + bytes([0, 0]),
    ],
    ids=["243", "padding", "a scale alone", "a value alone", "below zero", "nan", "minus zero"],
)
def test_what_no_packer_makes_is_refused(payload: bytes) -> None:
    assert reason(with_payload("ternary", {"x": (6,)}, payload)) == "malformed payload"


def test_the_smallest_numbers_are_zero_or_come_back() -> None:
    for value in (0.0, -0.0, 1e-45, 1e-40):
        back = crossed({"x": torch.full((9,), value)}, "ternary")["x"]
        assert back.isfinite().all() and float(back.abs().max()) <= 2 * abs(value)
        assert not torch.signbit(back).any()
