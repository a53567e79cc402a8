"""Laws of bernoulli: a draw of each number, the number in the mean, and few bytes where most draws are zero."""

import math

import numpy as np
import pytest
import torch
from frames import BASE, reason, with_payload
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.bernoulli import bernoulli_bytes, pack_bernoulli, unpack_bernoulli
from fed_lorac.wire.frame import encode, inspect
from fed_lorac.wire.layout import Slot
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.template import template_of

changes = hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, min_side=0), elements=st.floats(-1, 1, width=32))


def draw_of(x: np.ndarray, seed: int = 0) -> np.ndarray:
    slot = Slot(x.shape)
    packed = pack_bernoulli(x, slot, stream(seed, "codec"))
    assert len(packed) == bernoulli_bytes(slot) == math.ceil(x.size / 5)
    return unpack_bernoulli(memoryview(packed), slot)


@given(changes, st.integers(0, 99))
def test_a_number_becomes_its_sign_or_zero(x: np.ndarray, seed: int) -> None:
    drawn = draw_of(x, seed)
    assert drawn.shape == x.shape and drawn.dtype == np.float32
    assert ((drawn == 0) | (drawn == np.sign(x))).all()
    certain = np.isin(x, (-1, 0, 1))
    assert (drawn[certain] == x[certain]).all()


def test_the_mean_of_draws_is_the_number_and_their_variance_what_the_docs_say() -> None:
    x = np.linspace(-1, 1, 41, dtype=np.float32)
    draws = np.stack([draw_of(x, seed) for seed in range(4_000)]).astype(np.float64)
    spread = np.abs(x) * (1 - np.abs(x))
    assert (np.abs(draws.mean(0) - x) <= 5 * np.sqrt(spread / 4_000) + 1e-12).all()
    assert np.abs(draws.var(0) - spread).max() < 0.02


def test_draws_are_independent() -> None:
    """Of two numbers, and of two frames: no product in the mean beside that of the means."""
    pairs = np.stack([draw_of(np.full(2, 0.5, np.float32), seed) for seed in range(4_000)])
    assert abs((pairs[:, 0] * pairs[:, 1]).mean() - 0.25) < 0.04
    assert abs((pairs[1:, 0] * pairs[:-1, 0]).mean() - 0.25) < 0.04


@pytest.mark.parametrize("wrong", [1.0001, -1.5, 1e30])
def test_what_is_no_probability_is_refused_with_the_remedy(wrong: float) -> None:
    with pytest.raises(RefusedFrameError, match=r"from -1 to 1; 'c.p' holds .*Send another codec, as int8") as caught:
        encode({"c.p": torch.tensor([0.5, wrong])}, dtype="bernoulli", base=BASE, rng=stream(0, "codec"))
    assert caught.value.reason == "overflow"


def test_bytes_that_no_packer_makes_are_refused() -> None:
    assert reason(with_payload("bernoulli", {"x": (5,)}, b"\xf3")) == "malformed payload"
    assert reason(with_payload("bernoulli", {"x": (4,)}, b"\x51")) == "malformed payload"


@pytest.mark.parametrize(("share", "most"), [(0.0, 0.005), (0.002, 0.05), (0.02, 0.25), (0.1, 0.62), (0.5, 1.6)])
def test_sparse_draws_take_little_more_than_their_entropy(share: float, most: float) -> None:
    """Bits a value, as the docs say them; of half of them nothing is to be gained."""
    signs = torch.from_numpy(stream(1, "signs").integers(0, 2, 50_000) * 2.0 - 1)
    state, known = {"c.p": (share * signs).float()}, [template_of({"c.p": (50_000,)})]
    rng = stream(0, "codec")
    frame = encode(state, dtype="bernoulli", base=BASE, rng=rng, templates=known, entropy=True)
    entropy = share - sum(p * math.log2(p) for p in (share, 1 - share) if p)
    bits = 8 * inspect(frame, templates=known).payload_bytes / 50_000
    assert entropy < bits + 0.01 and bits < most + 0.005
