"""The laws of a codec: a frame is as long as it says, comes back, and any damage to it is noticed."""

from collections.abc import Callable

import torch
from torch import Tensor

from fed_lorac.errors import FrameError
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.testing.laws import distance, told, under
from fed_lorac.wire.codecs.codecs import Codec
from fed_lorac.wire.frame import by_name, decode, encode, inspect, payload_bytes

__all__ = ["check_codec"]

Law = Callable[..., None]

_BASE = "base"
_DRAWS = 400  # of a rounding, whose mean then is within a few of its standard errors


def check_codec(codec: str | Codec, *, error: float = 1.0, topk_share: float = 0.25) -> None:
    """Hold a codec to its laws, on small states of factors, convolutions, vectors and single numbers.

    One that is for probabilities is given numbers from -1 to 1.

    Args:
        codec: a name ("int8", "my_package.codecs:tenths") or a `Codec`.
        error: the largest relative error (Frobenius) that a decoded tensor of normal noise may have.
        topk_share: what frames are made with; only topk looks at it.

    Raises:
        AssertionError: a law is broken; it says which, and what came.
    """
    row = by_name(codec)

    def law(text: str, holds: object, came: object = "") -> None:
        under(told(row.name, text), holds, came)

    def framed(state: dict[str, Tensor], seed: int = 0) -> bytes:
        return encode(state, dtype=codec, base=_BASE, rng=stream(seed, "codec"), topk_share=topk_share)

    law("source must name where the codec is from", row.source)
    for state in _states(row):
        frame = framed(state)
        found, facts = decode(frame, base=_BASE), inspect(frame)
        law("equal states and streams must give equal frames", framed(state) == frame)
        said = payload_bytes(state, codec, topk_share)
        long = facts.payload_bytes
        law("a payload must be as long as size_bytes says", long == said, f"{long} bytes, not {said}")
        law("a decoded state must have the names that were sent", list(found) == sorted(state), list(found))
        for name, tensor in state.items():
            law(f"{name!r} must keep its shape", found[name].shape == tensor.shape, tuple(found[name].shape))
            law(f"{name!r} must be decoded finite", bool(found[name].isfinite().all()))
            off = distance(found[name], tensor)
            law(
                f"{name!r} must come back within a relative error of {error:g} (`error=`)",
                off <= error,
                f"{off:.3g} off",
            )
            law("lossless says that every number comes back", not row.lossless or torch.equal(found[name], tensor))
        if not row.random and not row.lossless:
            again = framed(found)
            law("what was decoded must be encoded again to the same values", _same(decode(again, base=_BASE), found))
    _check_damage(law, framed(_states(row)[0]))
    if row.unbiased and not row.lossless:
        _check_bias(law, framed, row)


def _states(codec: Codec) -> list[dict[str, Tensor]]:
    draw = torch_stream(0, "codec states")
    shapes = {"conv.A": (2, 12), "conv.B": (18, 2), "fc.bias": (5,), "fc.weight": (5, 6), "one": (), "w": (3, 2, 3, 3)}
    normal = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    tiny, large = ({name: scale * tensor for name, tensor in normal.items()} for scale in (1e-3, 1e3))
    zero = {name: torch.zeros(shape) for name, shape in shapes.items()}
    found: list[dict[str, Tensor]] = [normal, tiny, large, zero, {}]
    return [{name: _fit(tensor, codec) for name, tensor in state.items()} for state in found]


def _fit(tensor: Tensor, codec: Codec) -> Tensor:
    """Numbers that the codec is for."""
    return tensor.clamp(-1, 1) if codec.of_probabilities else tensor


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(distance(one[name], other[name]) < 1e-6 for name in other)


def _check_damage(law: Law, frame: bytes) -> None:
    def refused(damaged: bytes, base: str = _BASE) -> bool:
        try:
            decode(damaged, base=base)
        except FrameError:
            return True
        return False

    law("a truncated frame must be refused", all(refused(frame[:length]) for length in range(len(frame))))
    law("trailing bytes must be refused", refused(frame + b"\0") and refused(frame + frame))
    places = range(len(frame))
    flips = (frame[:at] + bytes([frame[at] ^ 1 << bit]) + frame[at + 1 :] for at in places for bit in range(8))
    law("every flipped bit must be noticed", all(map(refused, flips)))
    law("a frame for another base must be refused", refused(frame, base="another"))


def _check_bias(law: Law, framed: Callable[[dict[str, Tensor], int], bytes], codec: Codec) -> None:
    """The mean of many decoded frames is what was sent, up to six standard errors: of all values together, as some
    values are so near the grid that they are hardly ever rounded away."""
    state = {"fc.weight": _fit(torch.randn((6, 8), generator=torch_stream(1, "codec states")), codec)}
    draws = torch.stack([decode(framed(state, seed), base=_BASE)["fc.weight"].double() for seed in range(_DRAWS)])
    error = float(draws.std(dim=0).square().mean().sqrt()) / _DRAWS**0.5 + 1e-7
    worst = float((draws.mean(dim=0) - state["fc.weight"].double()).abs().max()) / error
    law(
        "unbiased says that the mean of what is decoded is what was sent", worst < 6, f"{worst:.1f} standard errors off"
    )
