"""Laws of frames: one state, one frame, and numbers that are finite."""

import pickle
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from frames import (
    BASE,
    TORCH_DTYPES,
    codecs,
    crossed,
    fit_for,
    floats,
    formula_bytes,
    framed,
    reason,
    same,
    sealed,
    small_state,
    states,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fed_lorac import registry
from fed_lorac.errors import FrameError
from fed_lorac.wire.codecs.codecs import CODECS
from fed_lorac.wire.frame import decode, encode, inspect, payload_bytes
from fed_lorac.wire.layout import CRC_BYTES, HEADER_BYTES, MAX_NAME_BYTES, MAX_TENSORS
from fed_lorac.wire.refusals import RefusedFrameError

# One state, one frame


@given(states)
def test_a_float32_frame_returns_its_state_bit_for_bit(state: dict[str, Tensor]) -> None:
    back = decode(encode(state, dtype="fp32", base=BASE), base=BASE)
    assert same(back, state)
    assert list(back) == sorted(state)


@given(states, floats)
def test_a_half_frame_returns_the_state_rounded_as_torch_rounds(state: dict[str, Tensor], dtype: str) -> None:
    back = decode(encode(state, dtype=dtype, base=BASE), base=BASE)
    assert same(back, {k: v.to(TORCH_DTYPES[dtype]).float() for k, v in state.items()})


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_bf16_rounds_any_float32_as_torch_does_or_says_overflow(values: list[float]) -> None:
    tensor = torch.tensor(values)
    rounded = tensor.bfloat16().float()
    if torch.isfinite(rounded).all():
        assert same(decode(encode({"x": tensor}, dtype="bf16", base=""), base=""), {"x": rounded})
    else:
        with pytest.raises(FrameError, match=r"must be below"):
            encode({"x": tensor}, dtype="bf16", base="")


@given(states, floats)
def test_encoding_a_decoded_frame_gives_the_same_bytes(state: dict[str, Tensor], dtype: str) -> None:
    frame = encode(state, dtype=dtype, base=BASE)
    assert encode(decode(frame, base=BASE), dtype=dtype, base=BASE) == frame


@given(states, codecs, st.randoms(use_true_random=False))
def test_the_order_of_the_dictionary_leaves_no_trace(state: dict[str, Tensor], dtype: str, random) -> None:  # type: ignore[no-untyped-def]
    names = list(state)
    random.shuffle(names)
    assert framed({n: state[n] for n in names}, dtype) == framed(state, dtype)


@given(states, codecs)
def test_names_and_shapes_come_back_and_values_are_finite(state: dict[str, Tensor], dtype: str) -> None:
    back = crossed(state, dtype)
    assert {n: t.shape for n, t in back.items()} == {n: state[n].shape for n in sorted(state)}
    assert all(t.dtype == torch.float32 and t.isfinite().all() for t in back.values())


@given(states, st.sampled_from(["int8", "int4", "int2", "bernoulli", "drive"]))
def test_equal_generators_give_equal_frames_and_others_give_others(state: dict[str, Tensor], dtype: str) -> None:
    assert framed(state, dtype, seed=1) == framed(state, dtype, seed=1)
    varied = small_state()
    assert framed(varied, dtype, seed=1) != framed(varied, dtype, seed=2)


@pytest.mark.parametrize("dtype", CODECS)
def test_a_codec_that_needs_a_generator_says_so(dtype: str) -> None:
    if not CODECS[dtype].random:
        assert encode(small_state(), dtype=dtype, base=BASE) == framed(small_state(), dtype)
        return
    with pytest.raises(RefusedFrameError, match=rf"A {dtype} frame.*rng=stream"):
        encode(fit_for(small_state(), dtype), dtype=dtype, base=BASE)


@pytest.mark.parametrize("dtype", CODECS)
def test_strides_precision_and_gradients_leave_no_trace(dtype: str) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    frame = framed({"x": x}, dtype)
    views = [
        x.to(memory_format=torch.channels_last),
        x.transpose(1, 3).contiguous().transpose(1, 3),
        torch.cat([x, x], dim=3)[..., :5],
        x.double(),
        torch.nn.Parameter(x),
    ]
    assert all(framed({"x": view}, dtype) == frame for view in views)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", CODECS)
def test_the_device_leaves_no_trace(dtype: str) -> None:
    state = small_state()
    on_gpu = {name: tensor.cuda() for name, tensor in state.items()}
    assert framed(on_gpu, dtype) == framed(state, dtype)


def test_frame_format_is_pinned_byte_by_byte() -> None:
    state = {"b.A": torch.tensor([[1.0, -2.0]]), "b.B": torch.tensor([[0.5]])}
    frame = encode(state, dtype="fp16", base="base")
    tag = bytes.fromhex("cae662172fd450bb")  # printf base | sha256sum
    table = b"\x02" + b"\x00\x1ab.A\x01\x02" + b"\x02\x0aB\x01\x01"
    payload = b"\x00\x3c\x00\xc0\x00\x38"
    body = b"FLRC\x01\x02" + tag + struct.pack("<I", 18 + len(table) + 6 + 4) + table + payload
    assert frame == body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("dtype", CODECS)
def test_decoded_tensors_are_writable_and_own_their_memory(dtype: str) -> None:
    state = crossed(small_state(), dtype)
    for tensor in state.values():
        assert tensor.dtype == torch.float32
        assert tensor.untyped_storage().nbytes() == 4 * tensor.numel()
        tensor.add_(1)


@given(states, codecs, st.sampled_from([0.001, 0.05, 0.3, 0.5, 1.0]))
def test_a_frame_is_header_table_payload_and_checksum(state: dict[str, Tensor], dtype: str, share: float) -> None:
    frame = framed(state, dtype, topk_share=share)
    facts = inspect(frame)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    assert facts.payload_bytes == payload_bytes(state, dtype, share) == formula_bytes(dtype, shapes, share)
    assert facts.frame_bytes == len(frame) == HEADER_BYTES + facts.table_bytes + facts.payload_bytes + CRC_BYTES
    assert facts.shapes == {k: tuple(v.shape) for k, v in state.items()}
    assert facts.dtype == dtype


# Values are finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", CODECS)
def test_a_state_that_is_not_finite_is_refused_by_name(bad: float, dtype: str) -> None:
    state = small_state()
    state["fc.weight"][1, 2] = bad
    with pytest.raises(FrameError, match=r"1 of the 12 in 'fc\.weight'.*learning rate"):
        framed(state, dtype)


@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001])
def test_a_frame_that_is_not_finite_is_refused_by_name(bits: int) -> None:
    frame = encode(small_state(), dtype="fp32", base=BASE)
    broken = sealed(frame[:-8] + struct.pack("<I", bits))
    assert reason(broken) == "non-finite"
    with pytest.raises(FrameError, match=r"layer1\.0\.conv1\.B"):
        decode(broken, base=BASE)


@pytest.mark.parametrize(
    ("dtype", "largest", "smallest_refused"),
    [
        ("fp16", 65519.996, 65520.0),
        ("bf16", float(np.nextafter(np.float32(3.3961775e38), np.float32(0))), 3.3961775e38),
        ("fp32", 3.4028235e38, 1e39),
        ("int8", 1.7014117e38, 2.0**127),
        ("int4", 1.7014117e38, 2.0**127),
        ("int2", 1.7014117e38, 2.0**127),
        ("ternary", float(np.nextafter(np.float32(3.3961775e38), np.float32(0))), 3.3961775e38),
        ("drive", 3.9614079e28, 2.0**95),
        ("topk", 3.4028235e38, 1e39),
    ],
)
def test_overflow_is_refused_from_the_first_number_that_rounds_to_infinity(
    dtype: str, largest: float, smallest_refused: float
) -> None:
    fits = torch.tensor([largest, -largest], dtype=torch.float64)
    assert all(t.isfinite().all() for t in crossed({"x": fits}, dtype).values())
    for sign in (1, -1):
        with pytest.raises(RefusedFrameError, match=rf"{dtype}.*'x'.*learning rate") as caught:
            framed({"x": torch.tensor([0.0, sign * smallest_refused], dtype=torch.float64)}, dtype)
        assert caught.value.reason == "overflow"


# What cannot be a state


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(3),
        torch.tensor([True]),
        torch.tensor([1j]),
        torch.eye(2).to_sparse(),
        torch.ones(2, device="meta"),
        np.ones(2),
        None,
    ],
)
def test_a_tensor_that_is_not_dense_or_not_float_is_refused_by_name(value: object) -> None:
    with pytest.raises(RefusedFrameError, match=r"'bn\.num_batches_tracked'") as caught:
        encode({"bn.num_batches_tracked": value}, dtype="fp32", base=BASE)  # type: ignore[dict-item]
    assert caught.value.reason == "not encodable"


@pytest.mark.parametrize("name", [7, "\ud800", "n" * (MAX_NAME_BYTES + 1)])
def test_a_name_that_cannot_travel_is_refused(name: object) -> None:
    with pytest.raises(FrameError, match=r"[Rr]ename|[Ss]horten"):
        encode({name: torch.ones(1)}, dtype="fp32", base=BASE)  # type: ignore[dict-item]


def test_limits_hold_for_writer_as_for_reader() -> None:
    with pytest.raises(FrameError, match="dimensions"):
        encode({"x": torch.ones([1] * 8)}, dtype="fp32", base=BASE)
    one = torch.ones(0)
    with pytest.raises(FrameError, match="tensors"):
        encode({str(n): one for n in range(MAX_TENSORS + 1)}, dtype="fp32", base=BASE)


def test_an_unknown_dtype_names_the_known_ones() -> None:
    with pytest.raises(
        FrameError, match="fp32, fp16, bf16, int8, int4, int2, ternary, bernoulli, drive, topk; got 'fp8'"
    ):
        encode(small_state(), dtype="fp8", base=BASE)


def test_dtype_codes_never_change() -> None:
    codes = {
        "fp32": 1,
        "fp16": 2,
        "bf16": 3,
        "int8": 4,
        "int4": 5,
        "int2": 8,
        "ternary": 9,
        "bernoulli": 10,
        "drive": 6,
        "topk": 7,
    }
    assert {name: row.code for name, row in CODECS.items()} == codes


def test_the_config_offers_every_codec_and_knows_which_lose_nothing() -> None:
    assert tuple(CODECS) == registry.CODECS.names
    assert tuple(name for name, row in CODECS.items() if row.lossless) == ("fp32",)
    assert all(row.name == name and row.source for name, row in CODECS.items())
    assert {name for name, row in CODECS.items() if row.unbiased} == {"fp32", "int8", "int4", "int2", "bernoulli"}


def test_a_refusal_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RefusedFrameError("Law; came; remedy.", "truncated")))  # noqa: S301
    assert (str(error), error.reason) == ("Law; came; remedy.", "truncated")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", CODECS)
def test_eleven_million_numbers_cross_in_a_second_or_a_few(dtype: str) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {f"layer{n}.weight": torch.randn(1_000, 1_100, generator=generator) for n in range(10)}
    times = []
    for _ in range(3 if dtype in TORCH_DTYPES else 1):  # processor time, the best: other processes may be at work
        started = time.process_time()
        crossed(state, dtype)
        times.append(time.process_time() - started)
    assert min(times) < (1.0 if dtype in TORCH_DTYPES else 10.0)
