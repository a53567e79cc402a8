"""States and frames that the tests of the codec share."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from fed_lorac.errors import FrameError
from fed_lorac.wire.codec import decode, encode
from fed_lorac.wire.dtypes import DTYPES
from fed_lorac.wire.faults import RefusedFrameError
from fed_lorac.wire.header import CRC_BYTES, HEADER_BYTES

BASE = "5f1a:round 3"
TORCH_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

dtypes = st.sampled_from(sorted(DTYPES))
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


def sealed(body: bytes) -> bytes:
    """A frame whose length and checksum are right, whatever else is wrong with it."""
    body = body[:14] + struct.pack("<I", len(body) + CRC_BYTES) + body[18:]
    return body + struct.pack("<I", zlib.crc32(body))


def with_table(table: bytes, payload: bytes = b"") -> bytes:
    return sealed(encode({}, dtype="fp32", base=BASE)[:HEADER_BYTES] + table + payload)


def reason(frame: bytes, base: str = BASE) -> str:
    with pytest.raises(FrameError) as caught:
        decode(frame, base=base)
    assert isinstance(caught.value, RefusedFrameError)
    return caught.value.reason


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].shape == b[k].shape and a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a
    )
