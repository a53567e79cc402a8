"""Frames: what crosses the radio, as bytes. Knows tensors, floats, checksums; not sockets, rounds or Flower.

    frame   = header, table, payload, crc
    header  = magic, version, dtype, base, length; 18 bytes
    table   = names and shapes, sorted by name; a few bytes a tensor
    payload = setup, then the tensors in the table's order, nothing between them         (wire/codecs.py)
    setup   = what the dtype says once: drive 8 bytes of seed, topk 4 of share, others nothing
    crc     = CRC-32 of every byte before it; 4 bytes

"dtype" is the codec's name: a number format or more. Scales, zero points, indices and padding are payload, and so are
billed. One state has one frame per dtype, base, setting and generator, and one frame one state; where the codec does
not round at random, `encode(decode(f)) == f`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from fed_lorac.errors import ConfigError, one_line
from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.codecs import OTHERS_FROM, Codec, by_code, by_name
from fed_lorac.wire.layout import (
    CRC_BYTES,
    HEADER_BYTES,
    VERSION,
    Entry,
    Shape,
    Slot,
    Values,
    base_tag,
    check_whole,
    component_axis,
    pack_table,
    read_header,
    read_table,
    seal,
)
from fed_lorac.wire.refusals import RefusedFrameError, malformed

__all__ = ["TOPK_SHARE", "VERSION", "FrameFacts", "by_name", "decode", "encode", "inspect", "payload_bytes"]

TOPK_SHARE = 0.05
"""The share of each tensor's values that topk sends where none is named."""


@dataclass(frozen=True)
class FrameFacts:
    """What an intact frame says of itself before its values are read."""

    version: int
    dtype: str
    base_tag: bytes
    frame_bytes: int
    table_bytes: int
    payload_bytes: int
    shapes: dict[str, Shape]


def _float32(name: str, tensor: Tensor) -> Values:
    """A tensor's values as contiguous float32 in CPU memory."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        came = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise RefusedFrameError(
            f"A frame carries floating-point tensors only; {name!r} is {came}. Leave it out of the state "
            "(a batch norm's num_batches_tracked, for one, stays with the camera) or convert it with .float().",
            "not encodable",
        )
    if tensor.layout != torch.strided or tensor.is_meta:
        raise RefusedFrameError(
            f"A frame carries dense tensors that hold values; {name!r} is {tensor.layout} on {tensor.device}. "
            "Call .to_dense(), or load the model's weights first.",
            "not encodable",
        )
    return np.ascontiguousarray(tensor.to(torch.float32).numpy(force=True))


def _check_finite(name: str, tensor: Tensor, values: Values, dtype: Codec) -> None:
    peak = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    if peak < dtype.overflow_at:  # false for NaN
        return
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).sum())
        raise RefusedFrameError(
            f"A frame carries finite numbers; {bad} of the {tensor.numel()} in {name!r} are NaN or infinite. "
            "Has training diverged? Lower the learning rate or clip the gradient.",
            "non-finite",
        )
    remedy = "Send bf16 or fp32" if dtype.overflow_at < 2.0**127 else "Scale it"
    raise RefusedFrameError(
        f"A number in a {dtype.name} frame must be below {min(dtype.overflow_at, 2.0**128):.6g} in magnitude; "
        f"{name!r} holds {float(tensor.abs().max()):.6g}. {remedy}, or lower the learning rate.",
        "overflow",
    )


def _sorted_names(state: Mapping[str, Tensor]) -> list[str]:
    try:
        return sorted(state, key=str.encode)
    except (TypeError, UnicodeEncodeError) as cause:
        raise RefusedFrameError(
            f"A frame's names must be valid Unicode strings; {cause}. Rename the tensor.", "not encodable"
        ) from None


def _slot(name: str, shape: Shape, number: int, setup: bytes) -> Slot:
    return Slot(shape, number, component_axis(name, shape), setup)


def encode(
    state: Mapping[str, Tensor],
    *,
    dtype: str | Codec,
    base: str,
    rng: Generator | None = None,
    topk_share: float = TOPK_SHARE,
) -> bytes:
    """The frame of a state: the same bytes for equal states, whatever their order, device or strides.

    Args:
        state: floating-point tensors by name.
        dtype: a codec or its name; `wire.codecs.CODECS` has those that are built in.
        base: fingerprint of the model that the state changes; only the same string decodes the frame.
        rng: for those that round or rotate at random (int8, int4, drive): a stream of this frame's own.
        topk_share: of topk: the share of each tensor's values to send, in steps of a millionth; 0.001 to 1.

    Raises:
        FrameError: a tensor is not finite, overflows `dtype`, or is not a dense floating-point tensor; or there is no
            such dtype, or no `rng` where it needs one.
    """
    row, names = by_name(dtype), _sorted_names(state)
    setup = row.setup(rng, topk_share)
    payload = [setup]
    for number, name in enumerate(names):
        values = _float32(name, state[name])
        _check_finite(name, state[name], values, row)
        payload.append(_packed(row, values, _slot(name, values.shape, number, setup), rng))
    table = pack_table([(name, tuple(state[name].shape)) for name in names])
    return seal(row.code, base_tag(base), [table, *payload])


def _packed(codec: Codec, values: Values, slot: Slot, rng: Generator | None) -> bytes:
    """A tensor's bytes; of somebody else's codec, as many as it says, or no reader would find the next tensor."""
    packed = codec.pack(values, slot, rng)
    if codec.code >= OTHERS_FROM and len(packed) != codec.size_bytes(slot):
        raise ConfigError(
            f"A codec packs a tensor into as many bytes as its size_bytes says; {codec.name} makes {len(packed)} of "
            f"shape {slot.shape}, and says {codec.size_bytes(slot)}. Mend its size_bytes or its pack."
        )
    return packed


def payload_bytes(state: Mapping[str, Tensor], dtype: str | Codec, topk_share: float = TOPK_SHARE) -> int:
    """The bytes of a state's values alone, without header, table and checksum, by the codec's formula."""
    row = by_name(dtype)
    setup = row.setup(stream(0, "weighed"), topk_share)  # a seed's size is what counts here
    slots = (_slot(name, tuple(tensor.shape), 0, setup) for name, tensor in state.items())
    return len(setup) + sum(row.size_bytes(slot) for slot in slots)


@dataclass(frozen=True)
class _Opened:
    """A frame of which everything but the values is known to be sound."""

    dtype: Codec
    tag: bytes
    slots: dict[str, Slot]
    payload: memoryview
    table_bytes: int


def _open(frame: memoryview) -> _Opened:
    check_whole(frame)
    code, tag = read_header(frame)
    dtype = by_code(code)
    entries, table_bytes = read_table(frame[HEADER_BYTES:-CRC_BYTES])
    payload = frame[HEADER_BYTES + table_bytes : -CRC_BYTES]
    needed, slots = dtype.setup_bytes, {}
    if len(payload) >= needed:
        dtype.check_setup(setup := bytes(payload[:needed]))
        slots = _slots(entries, setup)
        needed += sum(dtype.size_bytes(slot) for slot in slots.values())
    if needed != len(payload):
        raise RefusedFrameError(
            f"A frame's payload must hold what its table lists, {needed} bytes of {dtype.name}; it holds "
            f"{len(payload)}. The sender is not this codec: encode with fed_lorac.wire.frame.encode.",
            "malformed table",
        )
    return _Opened(dtype, tag, slots, payload, table_bytes)


def _slots(entries: list[Entry], setup: bytes) -> dict[str, Slot]:
    return {name: _slot(name, shape, number, setup) for number, (name, shape) in enumerate(entries)}


def _unpack(name: str, slot: Slot, data: memoryview, dtype: Codec) -> Tensor:
    try:
        values = dtype.unpack(data, slot)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # somebody else's: ours say what is wrong
        raise malformed(f"{dtype.name} cannot unpack {name!r}: {one_line(error)}") from error
    if values.shape != slot.shape or values.dtype != np.float32:
        raise malformed(f"{dtype.name} unpacks {name!r} as {values.dtype} {values.shape}, not float32 {slot.shape}")
    if not np.isfinite(values).all():
        raise RefusedFrameError(
            f"A frame carries finite numbers; {name!r} holds NaN or infinity. Leave this camera out of the round.",
            "non-finite",
        )
    return torch.from_numpy(values)


def decode(frame: bytes, *, base: str) -> dict[str, Tensor]:
    """The state in a frame: float32 CPU tensors by name, sorted, each in memory of its own.

    Args:
        frame: any bytes whatever.
        base: fingerprint of the model that the receiver holds.

    Raises:
        FrameError: the bytes are not one intact, canonical, finite frame for this base; a `RefusedFrameError` says why.
    """
    opened = _open(memoryview(frame).cast("B"))
    if opened.tag != base_tag(base):
        raise RefusedFrameError(
            f"A frame must be for the base that its receiver holds, tag {base_tag(base).hex()} ({base[:64]!r}); "
            f"this one is for tag {opened.tag.hex()}. Bring the sender up to date with the rounds it missed.",
            "other base",
        )
    state, at = {}, opened.dtype.setup_bytes
    for name, slot in opened.slots.items():
        size = opened.dtype.size_bytes(slot)
        state[name] = _unpack(name, slot, opened.payload[at : at + size], opened.dtype)
        at += size
    return state


def inspect(frame: bytes) -> FrameFacts:
    """What a frame says of itself, for any base and without its values; FrameError as for `decode`."""
    opened = _open(memoryview(frame).cast("B"))
    shapes = {name: slot.shape for name, slot in opened.slots.items()}
    return FrameFacts(
        VERSION, opened.dtype.name, opened.tag, len(frame), opened.table_bytes, len(opened.payload), shapes
    )


def encode_with_feedback(
    state: Mapping[str, Tensor],
    lost: Mapping[str, Tensor] | None,
    *,
    dtype: str | Codec,
    base: str,
    rng: Generator,
    topk_share: float,
) -> tuple[bytes, dict[str, Tensor]]:
    """The frame of `state + lost`, and what is lost now.

    `lost` is empty at first; where it is None there is no feedback: nothing is added, and nothing kept. FrameError as
    `encode`'s.
    """
    if lost is None:
        return encode(state, dtype=dtype, base=base, rng=rng, topk_share=topk_share), {}
    meant = {name: value + lost[name] if name in lost else value for name, value in state.items()}
    frame = encode(meant, dtype=dtype, base=base, rng=rng, topk_share=topk_share)
    arrived = decode(frame, base=base)
    return frame, {name: value - arrived[name] for name, value in meant.items()}
