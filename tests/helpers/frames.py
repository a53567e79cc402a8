"""States and frames that the tests of the codec share."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from math import ceil, log2, prod

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from fed_lorac.errors import FrameError
from fed_lorac.seeds import stream
from fed_lorac.wire.codecs.codecs import CODECS
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.layout import CRC_BYTES, HEADER_BYTES, pack_table
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.template import Template

BASE = "5f1a:round 3"
TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

floats = st.sampled_from(sorted(TORCH_DTYPES))
codecs = st.sampled_from(sorted(CODECS))
arrays = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    elements=st.floats(-65_000, 65_000, width=32),
)
states = st.dictionaries(st.text(max_size=12), arrays, max_size=6).map(
    lambda d: {k: torch.from_numpy(v) for k, v in d.items()}
)


def small_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "layer1.0.conv1.A": torch.randn(2, 12, generator=generator),
        "layer1.0.conv1.B": torch.randn(12, 2, generator=generator),
        "fc.weight": torch.randn(3, 4, generator=generator),
    }


def fit_for(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """The state, its finite numbers from -1 to 1 where the codec is for such."""
    if not CODECS[dtype].of_probabilities:
        return dict(state)
    return {name: torch.where(t.isfinite(), t.clamp(-1, 1), t) for name, t in state.items()}


def framed(state: Mapping[str, Tensor], dtype: str, *, seed: int = 0, topk_share: float = 0.05) -> bytes:
    """The frame of a state, whatever its codec asks for."""
    return encode(fit_for(state, dtype), dtype=dtype, base=BASE, rng=stream(seed, "frame"), topk_share=topk_share)


def crossed(state: Mapping[str, Tensor], dtype: str, *, seed: int = 0, topk_share: float = 0.05) -> dict[str, Tensor]:
    """The state as it arrives."""
    return decode(framed(state, dtype, seed=seed, topk_share=topk_share), base=BASE)


def with_payload(dtype: str, shapes: Mapping[str, tuple[int, ...]], payload: bytes) -> bytes:
    """A frame of these tensors whose length and checksum are right, with any bytes for values."""
    table = pack_table(sorted(shapes.items(), key=lambda entry: entry[0].encode()))
    return sealed(framed({}, dtype)[:HEADER_BYTES] + table + payload)


def drive_bits(count: int) -> int:
    """The fewest bits of any cut into blocks of 64, 128, ..., 65536, each with a scale: by trying them all."""
    return _fewest(-(-count // 64))[-1]


@cache
def _fewest(units: int) -> list[int]:
    """For 0, 1, ... units of 64 values."""
    found = [0]
    for held in range(1, units + 1):
        found.append(min(32 + 64 * size + found[max(0, held - size)] for size in (1 << power for power in range(11))))
    return found


def formula_bytes(dtype: str, shapes: Mapping[str, Sequence[int]], topk_share: float = 0.05) -> int:
    """The size of the values of a frame, on paper."""
    once = {"drive": 8, "topk": 4}.get(dtype, 0)
    return once + sum(_tensor_bytes(dtype, name, tuple(shape), topk_share) for name, shape in shapes.items())


def _tensor_bytes(dtype: str, name: str, shape: tuple[int, ...], topk_share: float) -> int:
    count = prod(shape)
    if dtype in TORCH_DTYPES:
        return TORCH_DTYPES[dtype].itemsize * count
    if dtype == "drive":
        return drive_bits(count) // 8
    if dtype == "topk":
        kept = ceil(round(count * topk_share, 6))
        index_bits = ceil(log2(count)) if count else 0
        return 4 * kept + min(ceil(count / 8), ceil(kept * index_bits / 8))
    if dtype == "bernoulli":
        return ceil(count / 5)
    groups = min(count, 1)
    if len(shape) > 1 and count:
        parts = shape[-1] if name.endswith(".B") else shape[-2] if name.endswith(".A") else shape[0]
        groups = parts if count // parts >= 16 else 1
    if dtype == "ternary":
        return 2 * groups + ceil(count / 5)
    return 4 * groups + ceil(count * int(dtype.removeprefix("int")) / 8)


def sealed(body: bytes) -> bytes:
    """A frame whose length and checksum are right, whatever else is wrong with it."""
    if body[:1] == b"\2":  # of version 2, which does not say how long it is
        return body + struct.pack("<I", zlib.crc32(body))
    body = body[:14] + struct.pack("<I", len(body) + CRC_BYTES) + body[18:]
    return body + struct.pack("<I", zlib.crc32(body))


def with_table(table: bytes, payload: bytes = b"") -> bytes:
    return sealed(encode({}, dtype="fp32", base=BASE)[:HEADER_BYTES] + table + payload)


def reason(frame: bytes, base: str = BASE, templates: Sequence[Template] = ()) -> str:
    with pytest.raises(FrameError) as caught:
        decode(frame, base=base, templates=templates)
    assert isinstance(caught.value, RefusedFrameError)
    return caught.value.reason


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a
    )
