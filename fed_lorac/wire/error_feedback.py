"""Error feedback: what a codec left out of one frame is added to the next. Knows states and frames; not who keeps what.

    meant_t = state_t + lost_{t-1},    lost_t = meant_t - decode(encode(meant_t))

so the sum of what is decoded is the sum of the states, less the last `lost` (arXiv 1809.07599, algorithm 1; arXiv
1901.09847). `lost` stays bounded for a codec that takes away a share of what it is given, as topk does always, and
drive, int8 and int4 do in the mean.
"""

from collections.abc import Mapping

from numpy.random import Generator
from torch import Tensor

from fed_lorac.wire.frame import decode, encode

__all__ = ["encode_with_feedback"]


def encode_with_feedback(
    state: Mapping[str, Tensor],
    lost: Mapping[str, Tensor] | None,
    *,
    dtype: str,
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
