"""Laws of frames: what is not one whole canonical frame is refused, with its reason."""

import time

import numpy as np
import pytest
import torch
from frames import BASE, codecs, framed, reason, sealed, small_state, states, with_table
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from fed_lorac.errors import FrameError
from fed_lorac.server.strategy import DownlinkCodec
from fed_lorac.wire.codecs.codecs import CODECS
from fed_lorac.wire.frame import decode, encode, inspect
from fed_lorac.wire.layout import HEADER_BYTES, MAX_NAME_BYTES, pack_table, read_table

# What came is not one whole frame


@pytest.mark.parametrize("dtype", CODECS)
def test_a_truncated_frame_is_refused(dtype: str) -> None:
    frame = framed(small_state(), dtype)
    assert {reason(frame[:length]) for length in range(len(frame))} == {"truncated"}


def test_trailing_bytes_are_refused() -> None:
    frame = encode(small_state(), dtype="fp32", base=BASE)
    assert reason(frame + b"\0") == "trailing bytes"
    assert reason(frame + frame) == "trailing bytes"


@pytest.mark.parametrize("dtype", CODECS)
def test_every_flipped_bit_is_refused(dtype: str) -> None:
    frame = framed(small_state(), dtype)
    reasons = set()
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        reasons.add(reason(bytes(flipped)))
    assert reasons == {"not a frame", "other version", "truncated", "trailing bytes", "damaged"}


def test_a_flipped_payload_bit_is_called_damage() -> None:
    frame = bytearray(encode(small_state(), dtype="fp32", base=BASE))
    frame[-20] ^= 4
    assert reason(bytes(frame)) == "damaged"


def test_another_magic_version_dtype_or_base_is_named() -> None:
    frame = encode(small_state(), dtype="fp32", base=BASE)
    body = frame[:-4]
    assert reason(sealed(b"PNG!" + body[4:])) == "not a frame"
    assert reason(sealed(body[:4] + b"\x02" + body[5:])) == "other version"
    assert reason(sealed(body[:5] + b"\x77" + body[6:])) == "unknown dtype"
    assert reason(frame, base="5f1a:round 4") == "other base"


def check_canonical(frame: bytes, state: dict[str, Tensor]) -> None:
    """The one frame of its state, where the codec does not round at random; finite at least, where it does."""
    facts = inspect(frame)
    assert all(t.isfinite().all() and t.shape == facts.shapes[name] for name, t in state.items())
    if not CODECS[facts.dtype].random:
        setup = frame[HEADER_BYTES + facts.table_bytes :][: CODECS[facts.dtype].setup_bytes]
        share = int.from_bytes(setup, "little") / 1e6 if setup else 1.0
        assert encode(state, dtype=facts.dtype, base=BASE, topk_share=share) == frame


@given(st.binary(max_size=200))
def test_any_bytes_give_a_state_or_a_frame_error(data: bytes) -> None:
    with pytest.raises(FrameError):  # 2**-32 aside, no random bytes are a frame
        decode(data, base=BASE)


@settings(max_examples=400)
@given(st.binary(max_size=120), st.sampled_from([row.code for row in CODECS.values()]))
@example(b"\x00", 1)
@example(b"\x00\xe7\x03\x00\x00", 7)
@example(b"\x01\x00\x0aa\xff\xff\xff\xff\x0f\x01\xe8\x03\x00\x00", 7)
@example(b"\x01\x00\x07" + b"\xff\xff\xff\xff\x0f" * 7, 1)
def test_any_bytes_under_a_right_checksum_give_a_canonical_state_or_a_frame_error(data: bytes, code: int) -> None:
    header = bytearray(encode({}, dtype="fp32", base=BASE)[:HEADER_BYTES])
    header[5] = code
    frame = sealed(bytes(header) + data)
    try:
        state = decode(frame, base=BASE)
    except FrameError:
        return
    check_canonical(frame, state)


@settings(max_examples=600)
@given(states, codecs, st.data())
def test_any_change_under_a_right_checksum_gives_a_canonical_state_or_a_frame_error(
    state: dict[str, Tensor], dtype: str, data: st.DataObject
) -> None:
    body = bytearray(framed(state, dtype, topk_share=0.3)[:-4])
    at = data.draw(st.integers(HEADER_BYTES, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    frame = sealed(bytes(body))
    try:
        changed = decode(frame, base=BASE)
    except FrameError:
        return
    check_canonical(frame, changed)


# The table has one spelling


def entry(shared: int, suffix: bytes, *dims: int) -> bytes:
    return bytes([shared, len(suffix) << 3 | len(dims)]) + suffix + bytes(dims)


MALFORMED = {
    "overlong count": b"\x80\x00",
    "overlong shared": b"\x01\x80\x00\x08a",
    "a number that never ends": b"\x01\x00\x09a" + b"\xff" * 8,
    "count beyond the table": b"\x02" + entry(0, b"a"),
    "count beyond the limit": b"\xff\xff\xff\xff\x0f" + entry(0, b"a"),
    "name beyond the table": b"\x01\x00\xf8\x7fa",
    "same name twice": b"\x02" + entry(0, b"a") + entry(1, b""),
    "not sorted": b"\x02" + entry(0, b"b") + entry(0, b"a"),
    "a prefix after its longer name": b"\x02" + entry(0, b"ab") + entry(1, b""),
    "prefix not used": b"\x02" + entry(0, b"ab") + entry(0, b"ac"),
    "prefix longer than the name before": b"\x02" + entry(0, b"a") + entry(2, b"b"),
    "prefix before the first name": b"\x01" + entry(1, b"a"),
    "not UTF-8": b"\x01" + entry(0, b"\xff"),
    "dimensions cut off": b"\x01\x00\x0aa\x01",
    "more numbers than 32 bits count": b"\x01\x00\x0aa" + b"\xff\xff\xff\xff\x0f" * 2,
    "huge beside an empty dimension": b"\x01\x00\x0ba\x00" + b"\xff\xff\xff\xff\x0f" * 2,
    "fewer values than listed": b"\x01" + entry(0, b"a", 100),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_table_is_refused(what: str) -> None:
    numbers = b"\0" * 4 * (1 + ("twice" in what or "sorted" in what or "prefix" in what))
    assert reason(with_table(MALFORMED[what], numbers)) == "malformed table"


def test_values_beyond_the_table_are_refused() -> None:
    assert reason(with_table(b"\x01" + entry(0, b"a", 1), b"\0" * 8)) == "malformed table"


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


def test_front_coding_cannot_grow_names_without_bound() -> None:
    names = [b"a" * length for length in range(1, MAX_NAME_BYTES + 2)]
    table = varint(len(names)) + b"".join(varint(len(n) - 1) + entry(0, b"a")[1:] for n in names)
    assert reason(with_table(table, b"\0" * 4 * len(names))) == "malformed table"


def test_absurd_sizes_are_refused_at_once() -> None:
    started = time.process_time()
    for what in ("count beyond the limit", "name beyond the table", "more numbers than 32 bits count"):
        assert reason(with_table(MALFORMED[what])) == "malformed table"
    assert time.process_time() - started < 0.5


@given(
    st.dictionaries(
        st.text(max_size=8), hnp.array_shapes(min_dims=0, max_dims=7, max_side=300).filter(lambda s: np.prod(s) < 2**32)
    )
)
def test_a_table_reads_back_to_its_last_byte(shapes: dict[str, tuple[int, ...]]) -> None:
    entries = sorted(shapes.items(), key=lambda e: e[0].encode())
    packed = pack_table(entries)
    assert read_table(memoryview(packed + b"tail")) == (entries, len(packed))


# What is no state, no share and no frame


@pytest.mark.parametrize("share", ["0.1", None, True, 5.0, 0.0, float("nan")])
def test_a_share_that_topk_cannot_send_is_refused(share: object) -> None:
    for refused in (
        lambda: encode(small_state(), dtype="topk", base=BASE, topk_share=share),  # type: ignore[arg-type]
        lambda: DownlinkCodec("topk", share),  # type: ignore[arg-type]
    ):
        with pytest.raises(FrameError, match=r"Top-k sends a share of 0\.001 to 1"):
            refused()


def test_tensors_without_plain_values_are_refused() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    for tensor, what in ((nested, "nested"), (nn.UninitializedParameter(), "lazy, without values")):
        with pytest.raises(FrameError, match=f"dense tensors that hold values; 'a' is {what}"):
            encode({"a": tensor}, dtype="fp32", base=BASE)


def test_what_is_no_name_and_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match=r"dtype must be one of .*got None"):
        encode(small_state(), dtype=None, base=BASE)  # type: ignore[arg-type]
    for read in (lambda frame: decode(frame, base=BASE), inspect):
        with pytest.raises(FrameError, match="A frame is bytes; got str"):
            read("abc")
