"""The codecs by name: how a tensor's values become bytes and come back. Knows one tensor at a time; not frames.

A codec's tensors have a size that follows from their shape and from what the frame says once, its `setup`, never from
their values: so a message can be weighed before anything is trained, and a reader knows where each tensor ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn.parameter import is_lazy

from fed_lorac import registry
from fed_lorac.errors import ConfigError
from fed_lorac.wire.codecs import bernoulli, drive, quantize, ternary, topk
from fed_lorac.wire.layout import Slot, Values
from fed_lorac.wire.refusals import RefusedFrameError

__all__ = ["CODECS", "OTHERS_FROM", "Codec", "by_code", "by_name", "check_finite", "float32"]

OTHERS_FROM, OTHERS_TO = 128, 255
"""Header codes of codecs that are not built in."""


@dataclass(frozen=True)
class Codec:
    """One way for values to travel.

    `unbiased`: the mean of what is decoded, over the codec's own randomness, is what was sent; codecs without any
    randomness are biased unless they are `lossless`. `random`: packing needs a generator. `of_probabilities`: it is for
    numbers from -1 to 1 that are worth a draw, probabilities and their changes (`Adapter.of_probabilities`).

    One of your own has a `code` from 128 to 255. All that a reader needs beside a tensor's shape is in the frame: what
    `setup` gives, which `unpack` finds in `slot.setup`; so settings are for the sender alone.
    """

    name: str
    code: int  # in a frame's header; never changes
    source: str
    unbiased: bool
    overflow_at: float  # the smallest magnitude that it refuses
    size_bytes: Callable[[Slot], int]
    pack: Callable[[Values, Slot, Generator | None], bytes]
    unpack: Callable[[memoryview, Slot], Values]  # in memory of its own
    setup_bytes: int = 0
    setup: Callable[[Generator | None, float], bytes] = lambda rng, topk_share: b""
    check_setup: Callable[[bytes], None] = lambda setup: None
    lossless: bool = False
    random: bool = False
    of_probabilities: bool = False


def _float(
    name: str,
    code: int,
    source: str,
    overflow_at: float,
    size_bytes: int,
    pack: Callable[[Values], bytes],
    unpack: Callable[[memoryview], Values],
) -> Codec:
    return Codec(
        name,
        code,
        source,
        name == "fp32",
        overflow_at,
        lambda slot: size_bytes * slot.count,
        lambda values, slot, rng: pack(values),
        lambda data, slot: unpack(data).reshape(slot.shape),
        lossless=name == "fp32",
    )


def _rounded(name: str, code: int, bits: int) -> Codec:
    return Codec(
        name,
        code,
        "stochastic rounding as in QSGD, arXiv 1610.02132, on a grid for each rank component",
        True,
        2.0**127,  # so the grid's end, rounded up, is still a float32
        lambda slot: quantize.rounded_bytes(slot, bits),
        lambda values, slot, rng: quantize.pack_rounded(values, slot, _given(rng, name), bits),
        lambda data, slot: quantize.unpack_rounded(data, slot, bits),
        random=True,
    )


def _given(rng: Generator | None, name: str) -> Generator:
    if rng is None:
        raise RefusedFrameError(
            f"A {name} frame is made with random numbers of its own; no generator came. "
            'Pass rng=stream(seed, "codec", camera, round).',
            "not encodable",
        )
    return rng


def _pack_fp32(values: Values) -> bytes:
    """As they are."""
    return values.astype("<f4", copy=False).tobytes()


def _unpack_fp32(data: memoryview) -> Values:
    """Flat, in memory of its own."""
    return np.frombuffer(data, "<f4").astype(np.float32)


FP32 = _float("fp32", 1, "IEEE 754 binary32", inf, 4, _pack_fp32, _unpack_fp32)
FP16 = _float("fp16", 2, "IEEE 754 binary16", 65520.0, 2, quantize.pack_fp16, quantize.unpack_fp16)
# 0x1.FFp127 lies half-way between bf16's largest number, 0x1.FEp127, and the power of two above it.
BF16 = _float("bf16", 3, "bfloat16", float.fromhex("0x1.FFp127"), 2, quantize.pack_bf16, quantize.unpack_bf16)
INT8, INT4 = _rounded("int8", 4, 8), _rounded("int4", 5, 4)
DRIVE = Codec(
    "drive",
    6,
    "DRIVE, arXiv 2105.08339",
    False,
    2.0**95,  # a frame's 2^32 values could rotate into one
    drive.drive_bytes,
    lambda values, slot, rng: drive.pack_drive(values, slot),
    drive.unpack_drive,
    drive.SEED_BYTES,
    lambda rng, topk_share: drive.drive_seed(_given(rng, "drive")),
    random=True,
)
TOPK = Codec(
    "topk",
    7,
    "top-k as in Sparsified SGD with Memory, arXiv 1809.07599",
    False,
    inf,
    topk.topk_bytes,
    lambda values, slot, rng: topk.pack_topk(values, slot),
    topk.unpack_topk,
    topk.SHARE_BYTES,
    lambda rng, topk_share: topk.pack_share(topk_share),
    topk.check_share,
)
INT2 = _rounded("int2", 8, 2)
TERNARY = Codec(
    "ternary",
    9,
    "Ternary Weight Networks, arXiv 1605.04711, equation 5, for each rank component",
    False,
    BF16.overflow_at,  # a scale is a mean, as bf16
    ternary.ternary_bytes,
    lambda values, slot, rng: ternary.pack_ternary(values, slot),
    ternary.unpack_ternary,
)

BERNOULLI = Codec(
    "bernoulli",
    10,
    "FedPM, arXiv 2209.15517: a draw of each probability, or of its change",
    True,
    float(np.nextafter(np.float32(1), np.float32(2))),
    bernoulli.bernoulli_bytes,
    lambda values, slot, rng: bernoulli.pack_bernoulli(values, slot, _given(rng, "bernoulli")),
    bernoulli.unpack_bernoulli,
    random=True,
    of_probabilities=True,
)

_ALL = (FP32, FP16, BF16, INT8, INT4, INT2, TERNARY, BERNOULLI, DRIVE, TOPK)

CODECS: dict[str, Codec] = {row.name: row for row in _ALL}
"""codec.up and codec.down -> how values travel."""


_OF_OTHERS: dict[int, Codec] = {}
"""Header code -> somebody else's codec, once this process has met it. A frame names its codec by this code alone."""


def by_name(dtype: str | Codec) -> Codec:
    """The codec called `dtype`: built in, or somebody else's, whose frames this process can read from then on.

    Raises:
        FrameError: there is none.
        ConfigError: somebody else's keeps no contract.
    """
    if isinstance(dtype, str) and dtype in CODECS:
        return CODECS[dtype]
    if isinstance(dtype, Codec):
        return dtype if CODECS.get(dtype.name) is dtype else _met(dtype)
    if not isinstance(dtype, str) or not registry.CODECS.is_outside(dtype):
        raise RefusedFrameError(
            f"A frame's dtype must be one of {', '.join(CODECS)}; got {dtype!r}. Choose one of these, or name one of "
            'your own as "module:Name".',
            "unknown dtype",
        )
    made: Codec = registry.CODECS.make(dtype)
    return _met(made)


def _met(codec: Codec) -> Codec:
    """Know somebody else's codec by its code from now on, in place of any that had the code before."""
    if not OTHERS_FROM <= codec.code <= OTHERS_TO or codec.name in CODECS:
        raise ConfigError(
            f"A codec of your own has a name of its own and a code from {OTHERS_FROM} to {OTHERS_TO}; "
            f"got {codec.name!r} with code {codec.code}. Choose others."
        )
    _OF_OTHERS[codec.code] = codec
    return codec


def by_code(code: int) -> Codec:
    """The codec with this header code; FrameError where there is none that this process knows."""
    known = {row.code: row for row in CODECS.values()} | _OF_OTHERS
    if code not in known:
        listed = ", ".join(f"{row.code} ({row.name})" for row in known.values())
        remedy = (
            "It is a codec of somebody's own: give this end its package and name it here too, as fed_lorac.wire.frame."
            "by_name does."
            if code >= OTHERS_FROM
            else "Give both ends the same version of fed-lorac."
        )
        raise RefusedFrameError(
            f"A frame's dtype code must be one of {listed}; this frame says {code}. {remedy}", "unknown dtype"
        )
    return known[code]


def float32(name: str, tensor: Tensor) -> Values:
    """A tensor's values as contiguous float32 in CPU memory."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        came = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise RefusedFrameError(
            f"A frame carries floating-point tensors only; {name!r} is {came}. Leave it out of the state "
            "(a batch norm's num_batches_tracked, for one, stays with the camera) or convert it with .float().",
            "not encodable",
        )
    nested, lazy = tensor.is_nested, is_lazy(tensor)
    if tensor.layout != torch.strided or tensor.is_meta or nested or lazy:
        what = "lazy, without values" if lazy else "nested" if nested else f"{tensor.layout} on {tensor.device}"
        raise RefusedFrameError(
            f"A frame carries dense tensors that hold values; {name!r} is {what}. "
            "Call .to_dense(), or give the model its weights first.",
            "not encodable",
        )
    return np.ascontiguousarray(tensor.to(torch.float32).numpy(force=True))


def check_finite(name: str, tensor: Tensor, values: Values, dtype: Codec) -> None:
    """Pass what the codec can carry; else a FrameError says what it cannot."""
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
    if dtype.of_probabilities:
        raise RefusedFrameError(
            f"A {dtype.name} frame carries probabilities and changes of them, from -1 to 1; {name!r} holds {peak:.6g}. "
            "Send another codec, as int8, or an adapter whose state is probabilities, as mask.",
            "overflow",
        )
    remedy = "Send bf16 or fp32" if dtype.overflow_at < 2.0**127 else "Scale it"
    raise RefusedFrameError(
        f"A number in a {dtype.name} frame must be below {min(dtype.overflow_at, 2.0**128):.6g} in magnitude; "
        f"{name!r} holds {float(tensor.abs().max()):.6g}. {remedy}, or lower the learning rate.",
        "overflow",
    )
