"""Laws of templates: a frame whose tensors both ends know says no names, has the same values, and takes no damage."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from frames import BASE, arrays, codecs, fit_for, reason, same, small_state, states
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_lorac.errors import FrameError
from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.codecs import CODECS
from fed_lorac.wire.frame import decode, encode, inspect
from fed_lorac.wire.layout import CRC_BYTES, SHORT_HEADER_BYTES
from fed_lorac.wire.template import MOST_IN_PAIR, Template, choices_of, entries_of, template_of

MOST = 32
"""Bytes beside the payload."""


def template_for(state: dict[str, Tensor]) -> Template:
    return template_of({name: tensor.shape for name, tensor in state.items()})


def short(state: dict[str, Tensor], dtype: str = "fp32", template: Template | None = None) -> bytes:
    known = [template_for(state) if template is None else template]
    state = fit_for(state, dtype)
    return encode(state, dtype=dtype, base=BASE, rng=stream(0, "frame"), topk_share=0.3, templates=known)


@given(states, codecs)
def test_the_version_moves_no_value(state: dict[str, Tensor], dtype: str) -> None:
    named = encode(fit_for(state, dtype), dtype=dtype, base=BASE, rng=stream(0, "frame"), topk_share=0.3)
    found = decode(short(state, dtype), base=BASE, templates=[template_for(state)])
    assert same(found, decode(named, base=BASE)) and list(found) == list(decode(named, base=BASE))


@given(states, codecs)
def test_a_frame_of_the_template_has_19_bytes_beside_its_payload(state: dict[str, Tensor], dtype: str) -> None:
    named = encode(fit_for(state, dtype), dtype=dtype, base=BASE, rng=stream(0, "frame"), topk_share=0.3)
    facts = inspect(frame := short(state, dtype))
    assert facts.payload_bytes == inspect(named).payload_bytes and facts.table_bytes == 1
    assert len(frame) == facts.payload_bytes + 19 == facts.payload_bytes + SHORT_HEADER_BYTES + 1 + CRC_BYTES
    assert (facts.version, facts.dtype, facts.shapes) == (2, dtype, None)
    assert inspect(frame, templates=[template_for(state)]).shapes == inspect(named).shapes


def test_the_short_format_is_pinned_byte_by_byte() -> None:
    template = template_of({"a.weight": (2, 3), "fc.bias": (1,)}, {"a.weight": (2, 3)})
    state = {"a.A": torch.zeros(1, 3), "a.B": torch.ones(2, 1), "fc.bias": torch.ones(1)}
    frame = encode(state, dtype="fp16", base="base", templates=[template])
    body = b"\x02\x02" + template.tag + bytes.fromhex("cae662172fd450bb") + b"\x01\x01\x02"
    body += b"\0\0" * 3 + b"\x00\x3c" * 3
    assert frame == body + struct.pack("<I", zlib.crc32(body))


# What a template allows


shapes = st.dictionaries(st.sampled_from(["a", "b", "layer1.conv", "layer2.conv", "z"]), st.integers(1, 5), max_size=5)
ranks = st.dictionaries(st.sampled_from(["a", "b", "layer1.conv", "layer2.conv", "z"]), st.integers(-1, 200))


@given(shapes, ranks)
def test_a_frame_may_hold_a_delta_of_any_sensible_rank_or_dense_or_none(
    sides: dict[str, int], ranks: dict[str, int]
) -> None:
    known = template_of(
        {f"{name}.weight": (side, 7) for name, side in sides.items()} | {"fc.bias": (3,)},
        {f"{name}.weight": (side, 7) for name, side in sides.items()},
    )
    state = {"fc.bias": torch.ones(3)}
    for name, side in sides.items():
        rank = ranks.get(name, 0)  # -1: not there, 0: dense
        if rank > 0:
            state |= {f"{name}.A": torch.ones(rank, 7), f"{name}.B": torch.ones(side, rank)}
        elif rank == 0:
            state[f"{name}.weight"] = torch.ones(side, 7)
    frame = short(state, template=known)
    large = any(ranks.get(name, 0) * (side + 7) > MOST_IN_PAIR * side * 7 for name, side in sides.items())
    assert inspect(frame).version == (1 if large else 2)  # what no template allows goes with its names
    assert same(decode(frame, base=BASE, templates=[known]), {name: state[name] for name in sorted(state)})


def test_deltas_of_one_rank_take_a_few_bytes_in_a_deep_network() -> None:
    sides = {f"layer{number}.conv.weight": (16, 144) for number in range(200)}
    known = template_of({**sides, "fc.weight": (10, 64), "fc.bias": (10,)}, sides)
    state = {"fc.weight": torch.ones(10, 64), "fc.bias": torch.ones(10)}
    for name in sides:
        stem = name.removesuffix(".weight")
        state |= {f"{stem}.A": torch.ones(4, 144), f"{stem}.B": torch.ones(16, 4)}
    assert len(frame := short(state, template=known)) - inspect(frame).payload_bytes <= MOST


def test_what_no_template_holds_goes_with_its_names() -> None:
    state = small_state()
    other = template_of({"fc.weight": (3, 5)})
    assert inspect(frame := short(state, template=other)).version == 1
    assert same(decode(frame, base=BASE), decode(short(state), base=BASE, templates=[template_for(state)]))


def test_a_frame_is_of_the_first_template_that_holds_its_state() -> None:
    state = small_state()
    known = [template_of({"x": (1,)}), template_for(state)]
    frame = encode(state, dtype="fp32", base=BASE, templates=known)
    assert inspect(frame).template_tag == known[1].tag
    assert same(decode(frame, base=BASE, templates=reversed(known)), decode(frame, base=BASE, templates=known))


def test_a_template_is_a_value_and_its_tag_of_all_that_it_lists() -> None:
    one = template_of({"a.weight": (2, 3), "b": (4,)})
    assert template_of({"b": [4], "a.weight": torch.Size([2, 3])}) is one
    others = [
        template_of({"a.weight": (3, 2), "b": (4,)}),
        template_of({"a.weight": (2, 3), "c": (4,)}),
        template_of({"a.weight": (2, 3)}),
        template_of({"a.weight": (2, 3), "b": (4,)}, {"a.weight": (2, 3)}),
        template_of({"a.weight": (2, 3), "b": (4,)}, {"a.weight": (1, 6)}),
    ]
    assert len({one.tag, *(other.tag for other in others)}) == 6


# Entropy coding


def coded(state: dict[str, Tensor], dtype: str, template: Template | None = None) -> bytes:
    known = [template_for(state) if template is None else template]
    rng = stream(0, "frame")
    state = fit_for(state, dtype)
    return encode(state, dtype=dtype, base=BASE, rng=rng, topk_share=0.3, templates=known, entropy=True)


def wide_state() -> dict[str, Tensor]:
    """Normal values, most of which lie in the middle of their grid."""
    generator = torch.Generator().manual_seed(5)
    return {"a.weight": torch.randn(4, 3_000, generator=generator), "b": torch.randn(7, generator=generator)}


@given(states, codecs)
def test_entropy_coding_moves_no_value_and_makes_no_frame_larger(state: dict[str, Tensor], dtype: str) -> None:
    plain, frame = short(state, dtype), coded(state, dtype)
    known = [template_for(state)]
    assert len(frame) <= len(plain) and (frame == plain or len(frame) < len(plain))
    assert same(decode(frame, base=BASE, templates=known), decode(plain, base=BASE, templates=known))
    facts = inspect(frame, templates=known)
    assert facts.payload_bytes == len(frame) - 19 and facts.shapes == inspect(plain, templates=known).shapes


@pytest.mark.parametrize(("dtype", "share"), [("int8", 0.93), ("int4", 0.83), ("int2", 0.80), ("topk", 0.95)])
def test_normal_values_take_fewer_bytes(dtype: str, share: float) -> None:
    state = wide_state()
    assert len(coded(state, dtype)) < share * len(short(state, dtype))


def test_a_frame_with_names_is_not_entropy_coded() -> None:
    state = wide_state()
    named = [encode(state, dtype="int4", base=BASE, rng=stream(0, "frame"), entropy=on) for on in (True, False)]
    assert named[0] == named[1]


@settings(max_examples=300)
@given(st.binary(max_size=60), st.sampled_from(["fp32", "int4", "topk", "drive"]))
def test_any_bytes_for_an_entropy_code_give_a_finite_state_or_a_frame_error(data: bytes, dtype: str) -> None:
    state, known = small_state(), [template_for(small_state())]
    head = b"\x82" + short(state, dtype)[1 : SHORT_HEADER_BYTES + 1]
    try:
        found = decode(sealed_short(head + data), base=BASE, templates=known)
    except FrameError:
        return
    assert all(tensor.isfinite().all() and tensor.shape == state[name].shape for name, tensor in found.items())


def test_an_entropy_code_that_is_longer_or_shorter_than_its_tensors_is_refused() -> None:
    """No more is unpacked than the tensors take, of one that would grow to 16 MiB too."""
    state, known = small_state(), [template_for(small_state())]
    plain = short(state)
    head, payload = b"\x82" + plain[1 : SHORT_HEADER_BYTES + 1], plain[SHORT_HEADER_BYTES + 1 : -CRC_BYTES]
    for wrong in (payload[:-1], payload + b"\0", payload + bytes(1 << 24), b""):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        frame = sealed_short(head + packer.compress(wrong) + packer.flush())
        assert reason(frame, templates=known) == "malformed payload"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    right = packer.compress(payload) + packer.flush()
    found = decode(sealed_short(head + right), base=BASE, templates=known)
    assert same(found, decode(plain, base=BASE, templates=known))
    assert reason(sealed_short(head + right + b"\0"), templates=known) == "malformed payload"
    assert reason(sealed_short(head + right[:-1]), templates=known) == "malformed payload"


# Damage


def damaged(frame: bytes, number: int) -> bytes:
    """The frame after one of many kinds of damage, another each time."""
    draw = stream(number, "damage")
    at, size, data = int(draw.integers(len(frame))), int(draw.integers(1, 12)), bytearray(frame)
    kind = number % 6
    if kind == 0:
        data[at] ^= 1 << int(draw.integers(8))
    elif kind == 1:
        data[at : at + size] = draw.bytes(len(data[at : at + size]))
    elif kind == 2:
        data = data[:at]
    elif kind == 3:
        data += draw.bytes(size)
    elif kind == 4:
        del data[at : at + size]
    else:
        data[at:at] = draw.bytes(size)
    return bytes(data)


def test_4000_damaged_frames_are_all_refused() -> None:
    """Every damage is an error, never a wrong tensor."""
    state, refused = small_state(), 0
    known = [template_for(state), template_for(wide_state())]
    frames = {dtype: short(state, dtype) for dtype in CODECS}
    state = wide_state()
    frames |= {f"{dtype}, coded": coded(state, dtype) for dtype in ("int4", "bernoulli", "topk")}
    for number in range(4_000):
        frame = frames[sorted(frames)[number % len(frames)]]
        if (broken := damaged(frame, number)) == frame:  # the bytes that were drawn are those that were there
            broken = frame + b"\0"
        with pytest.raises(FrameError):
            decode(broken, base=BASE, templates=known)
        refused += 1
    assert refused == 4_000


@pytest.mark.parametrize("dtype", CODECS)
def test_every_flipped_bit_and_every_cut_is_refused(dtype: str) -> None:
    state = small_state()
    frame, known = short(state, dtype), [template_for(state)]
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason(bytes(flipped), templates=known) in ("damaged", "not a frame")
    for length in range(len(frame)):
        assert reason(frame[:length], templates=known) in ("truncated", "damaged")


def sealed_short(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_another_template_base_or_dtype_is_named() -> None:
    state = small_state()
    frame, known = short(state), [template_for(state)]
    assert reason(frame) == "other template"
    assert reason(frame, templates=[template_of({"x": (1,)})]) == "other template"
    assert reason(frame, "5f1a:round 4", templates=known) == "other base"
    assert reason(sealed_short(frame[:1] + b"\x77" + frame[2:-4]), templates=known) == "unknown dtype"
    assert reason(sealed_short(frame[:-8]), templates=known) == "malformed table"
    assert reason(sealed_short(frame[:-4] + b"\0"), templates=known) == "malformed table"


@given(st.binary(max_size=40))
def test_any_bytes_for_runs_under_a_right_checksum_are_their_one_spelling_or_refused(runs: bytes) -> None:
    known = template_of({"a.weight": (2, 3), "b.weight": (2, 3), "c": ()}, {"a.weight": (2, 3), "b.weight": (2, 3)})
    head = encode({}, dtype="fp32", base=BASE, templates=[known])
    frame = sealed_short(head[:SHORT_HEADER_BYTES] + runs + bytes(40))
    try:
        state = decode(frame, base=BASE, templates=[known])
    except FrameError:
        return
    assert encode(state, dtype="fp32", base=BASE, templates=[known]) == frame


@settings(max_examples=300)
@given(st.binary(max_size=12))
def test_runs_have_one_spelling(said: bytes) -> None:
    known = template_of({"a.weight": (2, 3), "b.weight": (2, 3), "c": ()}, {"a.weight": (2, 3), "b.weight": (2, 3)})
    try:
        entries = entries_of(known, said)
    except FrameError:
        return
    assert choices_of(known, frozenset(entries)) == said


@given(arrays)
def test_a_forged_rank_is_refused_before_anything_is_held(values: np.ndarray) -> None:
    known = template_of({"a.weight": (2, 3)}, {"a.weight": (2, 3)})
    head = encode({}, dtype="topk", base=BASE, topk_share=0.001, templates=[known])[:SHORT_HEADER_BYTES]
    huge = b"\x01\x01\xff\xff\xff\xff\x7f"
    assert reason(sealed_short(head + huge + values.tobytes()), templates=[known]) == "malformed table"


@pytest.mark.parametrize("dtype", ["fp32", "int2", "topk"])
def test_a_short_coded_frame_takes_no_more_memory_than_the_template_allows(dtype: str) -> None:
    shape, least = (48, 48), 0.001
    known = template_of({"c.weight": shape}, {"c.weight": shape})
    largest = MOST_IN_PAIR * 48 * 48 // (48 + 48)

    def frame(rank: int, base: str = BASE) -> bytes:
        """As `encode` would write it for a reader with a larger layer, under this template's tag."""
        state = {"c.A": torch.zeros(rank, 48), "c.B": torch.zeros(48, rank)}
        wide = template_of({"c.weight": (48, 48, 99)}, {"c.weight": (48, 48)})
        rng = stream(0, "frame")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fed_lorac.wire.template.MOST_IN_PAIR", 1 << 20)
            choices_of.cache_clear()
            made = encode(state, dtype=dtype, base=base, rng=rng, topk_share=least, templates=[wide], entropy=True)
        choices_of.cache_clear()
        return sealed_short(made[:2] + known.tag + made[6:-4])

    assert decode(frame(largest), base=BASE, templates=[known])["c.A"].shape == (largest, 48)
    bomb = frame(20_000)
    assert len(bomb) < 20_000
    tracemalloc.start()
    try:
        assert reason(bomb, templates=[known]) == "malformed table"
        assert reason(frame(largest, "other"), templates=[known]) == "other base"
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_a_frame_for_another_base_is_refused_before_it_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"c": torch.zeros(1000)}
    known = [template_for(state)]
    frame = encode(state, dtype="fp32", base=BASE, templates=known, entropy=True)
    monkeypatch.setattr("fed_lorac.wire.frame.Inflated", lambda data: pytest.fail("inflated"))
    assert reason(frame, "5f1a:round 4", templates=known) == "other base"
