"""Frames: what crosses the radio, as bytes. Knows tensors, floats, checksums; not sockets, rounds or Flower.

    frame   = header, table or runs, payload, crc
    header  = magic, version, dtype, base, length; 18 bytes. Version 2: version, dtype, template, base; 14 bytes
    table   = version 1: names and shapes, sorted by name; a few bytes a tensor
    runs    = version 2, whose tensors both ends know: 1 byte, or a few where not all are as expected (wire/template.py)
    payload = setup, then the tensors in the order of their names, nothing between them  (wire/codecs.py)
    setup   = what the dtype says once: drive 8 bytes of seed, topk 4 of share, others nothing
    crc     = CRC-32 of every byte before it; 4 bytes

"dtype" is the codec's name: a number format or more. Scales, zero points, indices and padding are payload, and so are
billed. One state has one frame per dtype, base, setting, generator and template, and one frame one state; where the
codec does not round at random, `encode(decode(f)) == f`. The version moves no value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from fed_lorac.errors import ConfigError, one_line
from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.codecs import OTHERS_FROM, Codec, by_code, by_name, check_finite, float32
from fed_lorac.wire.entropy import Inflated, deflated
from fed_lorac.wire.layout import (
    CRC_BYTES,
    Cursor,
    Entry,
    Header,
    Shape,
    Slot,
    Values,
    base_tag,
    open_header,
    pack_table,
    read_table,
    seal,
)
from fed_lorac.wire.refusals import RefusedFrameError, malformed
from fed_lorac.wire.template import Template, choices_of, entries_of

__all__ = ["TOPK_SHARE", "FrameFacts", "by_name", "decode", "encode", "inspect", "payload_bytes"]

TOPK_SHARE = 0.05
"""The share of each tensor's values that topk sends where none is named."""


@dataclass(frozen=True)
class FrameFacts:
    """What an intact frame says of itself before its values are read.

    `template_tag`: empty in version 1, which names its tensors. `table_bytes`: of its names and shapes, or of its runs.
    `shapes`: None where they are those of a template that was not given.
    """

    version: int
    dtype: str
    base_tag: bytes
    template_tag: bytes
    frame_bytes: int
    table_bytes: int
    payload_bytes: int
    shapes: dict[str, Shape] | None


def _sorted_names(state: Mapping[str, Tensor]) -> list[str]:
    try:
        return sorted(state, key=str.encode)
    except (TypeError, UnicodeEncodeError) as cause:
        raise RefusedFrameError(
            f"A frame's names must be valid Unicode strings; {cause}. Rename the tensor.", "not encodable"
        ) from None


def component_axis(name: str, shape: Shape) -> int:
    """The axis on which a tensor's rank components lie: rows of "<name>.A", columns of "<name>.B", else the first.

    The kernel-wise A (out, in, r, K) and B (out, in, K, r) have theirs on the same axis, counted from the end.
    """
    if len(shape) < 2:
        return 0
    return {"A": -2, "B": -1}.get(name.rpartition(".")[2], 0)


def _slot(name: str, shape: Shape, number: int, setup: bytes) -> Slot:
    return Slot(shape, number, component_axis(name, shape), setup)


def encode(
    state: Mapping[str, Tensor],
    *,
    dtype: str | Codec,
    base: str,
    rng: Generator | None = None,
    topk_share: float = TOPK_SHARE,
    templates: Iterable[Template] = (),
    entropy: bool = False,
) -> bytes:
    """The frame of a state: the same bytes for equal states, whatever their order, device or strides.

    Args:
        state: floating-point tensors by name.
        dtype: a codec or its name; `wire.codecs.CODECS` has those that are built in.
        base: fingerprint of the model that the state changes; only the same string decodes the frame.
        rng: for those that round or rotate at random (int8, int4, int2, drive): a stream of this frame's own.
        topk_share: of topk: the share of each tensor's values to send, in steps of a millionth; 0.001 to 1.
        templates: those that the receiver knows (`wire.template.template_of`). Of the first that holds this state the
            frame is of version 2, and says no names or shapes; where none does it says them, and is of version 1.
        entropy: whether the payload of a frame of version 2 is entropy-coded, where that is smaller.

    Raises:
        FrameError: a tensor is not finite, overflows `dtype`, or is not a dense floating-point tensor; or there is no
            such dtype, or no `rng` where it needs one.
    """
    row, names = by_name(dtype), _sorted_names(state)
    setup = row.setup(rng, topk_share)
    payload = [setup]
    for number, name in enumerate(names):
        values = float32(name, state[name])
        check_finite(name, state[name], values, row)
        payload.append(_packed(row, values, _slot(name, values.shape, number, setup), rng))
    entries = [(name, tuple(state[name].shape)) for name in names]
    for template in templates:
        if (runs := choices_of(template, frozenset(entries))) is not None:
            coded = deflated(b"".join(payload)) if entropy else None
            sent = payload if coded is None else [coded]
            return seal(row.code, base_tag(base), [runs, *sent], template.tag, coded is not None)
    return seal(row.code, base_tag(base), [pack_table(entries), *payload])


def _packed(codec: Codec, values: Values, slot: Slot, rng: Generator | None) -> bytes:
    """A tensor's bytes; of somebody else's codec, as many as it says, or no reader would find the next tensor."""
    packed = codec.pack(values, slot, rng)
    if codec.code < OTHERS_FROM:
        return packed
    if not isinstance(size := codec.size_bytes(slot), Integral) or len(packed) != size:
        raise ConfigError(
            f"A codec packs a tensor into as many bytes as its size_bytes says; {codec.name} makes {len(packed)} of "
            f"shape {slot.shape}, and says {size}. Fix its size_bytes or its pack."
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
    """A frame of which everything but the values is known to be sound; `slots` is None where nobody knows its
    template."""

    header: Header
    dtype: Codec
    slots: dict[str, Slot] | None
    payload: memoryview
    table_bytes: int
    payload_bytes: int  # as it travels


def _open(frame: memoryview, templates: Iterable[Template], base: str | None = None) -> _Opened:
    """`base`: the only one whose frames are read on, before anything is inflated; None: any."""
    header = open_header(frame)
    if base is not None and header.base != base_tag(base):
        raise RefusedFrameError(
            f"A frame must be for the base that its receiver holds, tag {base_tag(base).hex()} ({base[:64]!r}); "
            f"this one is for tag {header.base.hex()}. Bring the sender up to date with the rounds it missed.",
            "other base",
        )
    dtype, body = by_code(header.code), frame[header.size : -CRC_BYTES]
    entries: Sequence[Entry] | None
    if header.template:
        table_bytes = _runs_bytes(body)
        known = next((one for one in templates if one.tag == header.template), None)
        entries = None if known is None else entries_of(known, bytes(body[:table_bytes]))
    else:
        entries, table_bytes = read_table(body)
    payload = body[table_bytes:]
    if entries is None:
        return _Opened(header, dtype, None, payload, table_bytes, len(payload))
    if not header.coded:
        return _Opened(header, dtype, _slots(dtype, entries, payload), payload, table_bytes, len(payload))
    inflated = Inflated(payload)
    setup = inflated.take(dtype.setup_bytes)
    dtype.check_setup(setup)
    places = _places(entries, setup)
    values = inflated.take(sum(dtype.size_bytes(slot) for slot in places.values()))
    inflated.end()
    return _Opened(header, dtype, places, memoryview(setup + values), table_bytes, len(payload))


def _runs_bytes(data: memoryview) -> int:
    """How many bytes the runs take that `data` starts with."""
    cursor = Cursor(data)
    for _ in range(2 * cursor.varint()):
        cursor.varint()
    return cursor.at


def _places(entries: Sequence[Entry], setup: bytes) -> dict[str, Slot]:
    return {name: _slot(name, shape, number, setup) for number, (name, shape) in enumerate(entries)}


def _slots(dtype: Codec, entries: Sequence[Entry], payload: memoryview) -> dict[str, Slot]:
    """Each tensor's place by name; FrameError unless the payload is as long as all of them."""
    needed, slots = dtype.setup_bytes, {}
    if len(payload) >= needed:
        dtype.check_setup(setup := bytes(payload[:needed]))
        slots = _places(entries, setup)
        needed += sum(dtype.size_bytes(slot) for slot in slots.values())
    if needed != len(payload):
        raise RefusedFrameError(
            f"A frame's payload must hold what its table lists, {needed} bytes of {dtype.name}; it holds "
            f"{len(payload)}. The sender is not this codec: encode with fed_lorac.wire.frame.encode.",
            "malformed table",
        )
    return slots


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


def _view(frame: bytes) -> memoryview:
    try:
        return memoryview(frame).cast("B")
    except TypeError:
        raise RefusedFrameError(
            f"A frame is bytes; got {type(frame).__name__}. Give what `encode` returned.", "not a frame"
        ) from None


def decode(frame: bytes, *, base: str, templates: Iterable[Template] = ()) -> dict[str, Tensor]:
    """The state in a frame: float32 CPU tensors by name, sorted, each in memory of its own.

    Args:
        frame: any bytes whatever.
        base: fingerprint of the model that the receiver holds.
        templates: those that a frame of version 2 may be of.

    Raises:
        FrameError: the bytes are not one intact, canonical, finite frame for this base, of one of these templates or
            with names of its own; a `RefusedFrameError` says why.
    """
    opened = _open(_view(frame), templates, base)
    if opened.slots is None:
        raise RefusedFrameError(
            "A frame without names must be of a template that its receiver knows; this one is of tag "
            f"{opened.header.template.hex()}. Give decode its template, or have the sender name its tensors.",
            "other template",
        )
    state, at = {}, opened.dtype.setup_bytes
    for name, slot in opened.slots.items():
        size = opened.dtype.size_bytes(slot)
        state[name] = _unpack(name, slot, opened.payload[at : at + size], opened.dtype)
        at += size
    return state


def inspect(frame: bytes, *, templates: Iterable[Template] = ()) -> FrameFacts:
    """What a frame says of itself, for any base and without its values; FrameError as for `decode`, but for a template
    that is not among these."""
    opened = _open(_view(frame), templates)
    header, slots = opened.header, opened.slots
    return FrameFacts(
        header.version,
        opened.dtype.name,
        header.base,
        header.template,
        len(frame),
        opened.table_bytes,
        opened.payload_bytes,
        None if slots is None else {name: slot.shape for name, slot in slots.items()},
    )
