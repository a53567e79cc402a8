"""Why nothing good came: reasons as short words for a ledger. Knows no bytes, cameras or rounds."""

from typing import Literal

from fed_lorac.errors import FrameError

__all__ = ["DROPPED_OUT", "LOST", "NOT_ASKED", "Reason", "RefusedFrameError", "malformed"]

DROPPED_OUT = "dropped out"
LOST = "the reply was lost on the air"
NOT_ASKED = "the message to it was lost on the air"
"""The reason in the Flower `Error` that stands for a reply which is lost by design (`fleet.limited.dropout`)."""

Reason = Literal[
    "truncated",
    "trailing bytes",
    "not a frame",
    "other version",
    "damaged",
    "unknown dtype",
    "other base",
    "other template",
    "malformed table",
    "malformed payload",
    "non-finite",
    "overflow",
    "not encodable",
    "malformed envelope",
]


class RefusedFrameError(FrameError):
    """A FrameError that also carries its reason as one of a few words, fit for counting in a ledger."""

    def __init__(self, message: str, reason: Reason = "damaged") -> None:
        # The message alone goes into args, so that the error crosses process borders (pickle) unchanged.
        super().__init__(message)
        self.reason: Reason = reason


def malformed(what: str) -> RefusedFrameError:
    """The refusal of values that no codec packs."""
    return RefusedFrameError(
        f"A frame's values must be in their codec's canonical form; {what}. "
        "The sender is not this codec: encode with fed_lorac.wire.frame.encode.",
        "malformed payload",
    )
