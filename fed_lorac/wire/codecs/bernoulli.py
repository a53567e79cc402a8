"""One draw of each number: a probability becomes 0 or 1, a change of one -1, 0 or 1. Knows one tensor's values; not
names or frames.

    tensor = trits        a byte is five of them, t_0 + 3 t_1 + ... + 81 t_4; padding. A trit 0, 1 or 2 is 0, 1 or -1

x from -1 to 1 is sent as its sign with probability |x|, else as 0, so that

    E[decoded] = x,    Var[decoded] = |x| (1 - |x|)

as FedPM draws a mask (Isik et al. 2023, arXiv 2209.15517, algorithm 1), and independently. That is 1.6 bits a value;
draws of small changes are mostly zeros, of which an entropy code leaves little: 0.04 bits a value where 0.2 % are not,
0.23 where 2 % are not, 0.59 where a tenth is not (their entropies: 0.02, 0.16, 0.57).
"""

import numpy as np
from numpy.random import Generator

from fed_lorac.wire.codecs.ternary import packed_trits, trit_bytes, unpacked_trits
from fed_lorac.wire.layout import Slot, Values

__all__ = ["bernoulli_bytes", "pack_bernoulli", "unpack_bernoulli"]

_PLACES = np.array([0, 1, -1], np.float32)


def bernoulli_bytes(slot: Slot) -> int:
    """A byte for five values."""
    return trit_bytes(slot.count)


def pack_bernoulli(values: Values, slot: Slot, rng: Generator) -> bytes:
    """The tensor's bytes; `rng` draws. Values are from -1 to 1."""
    flat = values.reshape(-1)
    drawn = rng.random(flat.size) < np.abs(flat)
    return packed_trits(np.where(drawn, np.where(flat < 0, 2, 1), 0).astype(np.uint8))


def unpack_bernoulli(data: memoryview, slot: Slot) -> Values:
    """-1, 0 and 1, in the tensor's shape.

    Raises:
        FrameError: bytes that no packer makes.
    """
    found: Values = _PLACES[unpacked_trits(data, slot.count)].reshape(slot.shape)
    return found
