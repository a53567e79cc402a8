"""A branch on a convolution whose class has a forward of its own: TensorFlow's padding, a standardised weight (timm).
Knows classes; not what a branch or the forward computes.

The class's forward is called as it is while the layer's weight is W + delta: y = f(x; W + delta), whatever f does to
its weight and input. That is what the merged network computes, so attached and merged are one by construction.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from torch import Tensor, nn

__all__ = ["OwnForward", "has_own_forward", "with_own_forward"]


def has_own_forward(layer: nn.Module) -> bool:
    """Whether its class is another than nn.Conv2d or nn.Linear themselves."""
    return type(layer) not in (nn.Conv2d, nn.Linear)


class OwnForward:
    """Before an adapted layer's class: calls the forward of `unadapted`, the class that the convolution was of."""

    unadapted: ClassVar[type[nn.Module]]
    effective_weight: Any
    own: Any

    def forward(self, input: Tensor) -> Tensor:
        """The convolution with its delta."""
        return self.convolve(input, None)

    def convolve(self, input: Tensor, affine: tuple[Tensor, Tensor | None] | None) -> Tensor:
        """`forward`, then y * gain + shift where `affine` is (gain, shift): after it, as a gain would be lost on a
        weight that is standardised."""
        own: Mapping[str, Tensor] = self.own()
        self.__dict__["weight"] = self.effective_weight(own)  # found before the parameter of the same name
        try:
            found: Tensor = self.unadapted.forward(self, input)  # type: ignore[arg-type]
        finally:
            del self.__dict__["weight"]
        if affine is None:
            return found
        gain, shift = affine
        found = found * gain.view(-1, 1, 1)
        return found if shift is None else found + shift.view(-1, 1, 1)


@cache
def with_own_forward(kind: type[nn.Module], unadapted: type[nn.Module]) -> type[nn.Module]:
    """The class of a layer of class `unadapted` that has a branch of `kind`."""
    return type(f"{kind.__name__}On{unadapted.__name__}", (OwnForward, kind, unadapted), {"unadapted": unadapted})
