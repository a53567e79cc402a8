"""Error feedback: what a codec left out of a sender's frames so far is added to its next one ("Sparsified SGD with
Memory", arXiv 1809.07599; "Error Feedback Fixes SignSGD", arXiv 1901.09847). Knows states and frames; not who keeps
what is owed, nor for which adapters it has a meaning."""

from collections.abc import Mapping, Sequence

from numpy.random import Generator
from torch import Tensor

from fed_lorac.wire.codecs.codecs import Codec
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.template import Template

__all__ = ["encode_with_feedback"]


def encode_with_feedback(
    state: Mapping[str, Tensor],
    lost: Mapping[str, Tensor],
    *,
    dtype: str | Codec,
    base: str,
    rng: Generator,
    topk_share: float,
    templates: Sequence[Template] = (),
    entropy: bool = False,
) -> tuple[bytes, dict[str, Tensor]]:
    """The frame of `state + lost`, and what is lost now. `lost` is empty at first. FrameError as `encode`'s."""
    meant = {name: value + lost[name] if name in lost else value for name, value in state.items()}
    frame = encode(meant, dtype=dtype, base=base, rng=rng, topk_share=topk_share, templates=templates, entropy=entropy)
    arrived = decode(frame, base=base, templates=templates)
    return frame, {name: value - arrived[name] for name, value in meant.items()}
