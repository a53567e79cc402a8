"""Frames: what crosses the radio, as bytes. Knows tensors, dtypes, checksums; not sockets, rounds or Flower.

    frame   = header, table, payload, crc
    header  = magic, version, dtype, base, length; 18 bytes                              (wire/header.py)
    table   = names and shapes, sorted by name; a few bytes a tensor                     (wire/table.py)
    payload = the values in the table's order, C order, nothing between tensors          (wire/dtypes.py)
    crc     = CRC-32 of every byte before it; 4 bytes                                    (wire/header.py)

One state has one frame per dtype and base, and one frame one state: `encode(decode(f)) == f`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fed_lorac.wire.dtypes import Shape, Values, WireDtype, by_code, by_name
from fed_lorac.wire.faults import RefusedFrameError
from fed_lorac.wire.header import CRC_BYTES, HEADER_BYTES, VERSION, base_tag, check_whole, read_header, seal
from fed_lorac.wire.table import Entry, pack_table, read_table

__all__ = ["VERSION", "FrameFacts", "decode", "encode", "inspect", "payload_bytes"]


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


def _check_finite(name: str, tensor: Tensor, values: Values, dtype: WireDtype) -> None:
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


def _pack(name: str, tensor: Tensor, dtype: WireDtype) -> bytes:
    values = _float32(name, tensor)
    _check_finite(name, tensor, values, dtype)
    return dtype.pack(values)


def encode(state: Mapping[str, Tensor], *, dtype: str, base: str) -> bytes:
    """The frame of a state: the same bytes for equal states, whatever their order, device or strides.

    Args:
        state: floating-point tensors by name; sent as float32 rounded (to nearest, ties to even) to `dtype`.
        dtype: "fp32", "fp16" or "bf16".
        base: fingerprint of the model that the state changes; only the same string decodes the frame.

    Raises:
        FrameError: a tensor is not finite, overflows `dtype`, or is not a dense floating-point tensor.
    """
    row = by_name(dtype)
    names = _sorted_names(state)
    payload = [_pack(name, state[name], row) for name in names]
    table = pack_table([(name, tuple(state[name].shape)) for name in names])
    return seal(row.code, base_tag(base), [table, *payload])


def payload_bytes(state: Mapping[str, Tensor], dtype: str) -> int:
    """The bytes of a state's values alone, without header, table and checksum."""
    return sum(by_name(dtype).size_bytes(tuple(tensor.shape)) for tensor in state.values())


def _open(frame: memoryview) -> tuple[WireDtype, bytes, list[Entry], int]:
    """dtype, base tag, table and where the payload starts, once everything but the values is known to be sound."""
    check_whole(frame)
    code, tag = read_header(frame)
    dtype = by_code(code)
    entries, table_bytes = read_table(frame[HEADER_BYTES:-CRC_BYTES])
    start = HEADER_BYTES + table_bytes
    needed, present = sum(dtype.size_bytes(shape) for _, shape in entries), len(frame) - start - CRC_BYTES
    if needed != present:
        raise RefusedFrameError(
            f"A frame's payload must hold what its table lists, {needed} bytes of {dtype.name}; it holds {present}. "
            "The sender is not this codec: encode with fed_lorac.wire.codec.encode.",
            "malformed table",
        )
    return dtype, tag, entries, start


def _unpack(name: str, shape: Shape, data: memoryview, dtype: WireDtype) -> Tensor:
    values = dtype.unpack(data)
    if not np.isfinite(values).all():
        raise RefusedFrameError(
            f"A frame carries finite numbers; {name!r} holds NaN or infinity. Leave this camera out of the round.",
            "non-finite",
        )
    return torch.from_numpy(values.reshape(shape))


def decode(frame: bytes, *, base: str) -> dict[str, Tensor]:
    """The state in a frame: float32 CPU tensors by name, sorted, each in memory of its own.

    Args:
        frame: any bytes whatever.
        base: fingerprint of the model that the receiver holds.

    Raises:
        FrameError: the bytes are not one intact, canonical, finite frame for this base; a `RefusedFrameError` says why.
    """
    view = memoryview(frame).cast("B")
    dtype, tag, entries, at = _open(view)
    if tag != base_tag(base):
        raise RefusedFrameError(
            f"A frame must be for the base that its receiver holds, tag {base_tag(base).hex()} ({base[:64]!r}); "
            f"this one is for tag {tag.hex()}. Bring the sender up to date with the rounds it missed.",
            "other base",
        )
    state = {}
    for name, shape in entries:
        size = dtype.size_bytes(shape)
        state[name] = _unpack(name, shape, view[at : at + size], dtype)
        at += size
    return state


def inspect(frame: bytes) -> FrameFacts:
    """What a frame says of itself, for any base and without its values; FrameError as for `decode`."""
    view = memoryview(frame).cast("B")
    dtype, tag, entries, start = _open(view)
    payload = len(view) - start - CRC_BYTES
    return FrameFacts(VERSION, dtype.name, tag, len(view), start - HEADER_BYTES, payload, dict(entries))
