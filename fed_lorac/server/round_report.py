"""One round in numbers. Knows replies and sizes; not frames, nor how a round went."""

import math
from collections import Counter
from dataclasses import dataclass, field

from fed_lorac.server.replies import Reply
from fed_lorac.wire.billing import MessageSize

__all__ = ["RoundReport"]


@dataclass
class RoundReport:
    """One round in numbers: replies in the order of the draw, what went down to each camera, the average's error.

    `caught_up` counts messages by the number of updates that they made up for.
    """

    round: int
    replies: list[Reply]
    down: dict[int, MessageSize] = field(default_factory=dict)
    caught_up: Counter[int] = field(default_factory=Counter)
    skipped: bool = False
    aggregation_error: float = math.nan

    @property
    def updates_sent(self) -> int:
        """How many updates all messages made up for."""
        return sum(updates * messages for updates, messages in self.caught_up.items())
