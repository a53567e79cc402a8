"""A tensor's place in a frame, and how its values group. Knows shapes; not bytes or formats."""

from dataclasses import dataclass
from math import prod

from fed_lorac.wire.layout import Shape

__all__ = ["LEAST_IN_GROUP", "Slot"]

LEAST_IN_GROUP = 16
"""Values that are worth a grid of four bytes: the rows of a core of 4 x 4 numbers would take 16 bytes of grids in int4,
and 8 of codes."""


@dataclass(frozen=True)
class Slot:
    """One tensor's place.

    `number` counts a frame's tensors from 0; `setup` is what the frame says once, for all of them; along `axis` lie
    the tensor's rank components, or its rows.
    """

    shape: Shape
    number: int = 0
    axis: int = 0
    setup: bytes = b""

    @property
    def count(self) -> int:
        """How many values it holds."""
        return prod(self.shape)

    @property
    def groups(self) -> int:
        """Into how many groups its values fall: one a rank component, or a row. One in all for a vector, a single
        number, and where a component would have fewer than `LEAST_IN_GROUP` values; none for an empty tensor."""
        if self.count == 0:
            return 0
        parts = self.shape[self.axis] if len(self.shape) > 1 else 1
        return parts if self.count >= parts * LEAST_IN_GROUP else 1
