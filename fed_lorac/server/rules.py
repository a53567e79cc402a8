"""Who takes part in a round, as a strategy is told it. Knows cameras by number; not messages, nor what is averaged."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from fed_lorac.server.audience import Audience
from fed_lorac.server.replies import Reply
from fed_lorac.server.unheard import LosesMessages
from fed_lorac.wire.billing import MessageSize

__all__ = ["FleetRules"]


@dataclass(frozen=True, eq=False)
class FleetRules:
    """Who takes part in a round, and what it needs.

    Args:
        quorum: counted replies that a round needs, at least 1 and `Strategy.least_replies`; with fewer it is skipped
            and nothing changes.
        roster: node id -> camera; None: the grid's nodes become cameras 0, 1, 2, ... as they register.
        draw: round -> the cameras to ask, in the order in which they are asked and summed; None: all of them.
        away: round -> the cameras that cannot be reached in it: they are told nothing and catch up later; None: none.
        link: camera -> the link that it hears: what all lack goes out on each once, under multicast; by default one.
        judge: (a reply, the size of what its camera was asked with) -> the reply as it counts, the late ones left out.
        audience: those who are neither asked nor `measured` hear updates as this, without a message of their own; their
            nodes must be told so. None: every camera has its message.
        losses: which messages the radio loses; they are billed all the same. None: none.
    """

    quorum: int = 1
    roster: Mapping[int, int] | None = None
    draw: Callable[[int], Iterable[int]] | None = None
    away: Callable[[int], Collection[int]] | None = None
    link: Callable[[int], str] = lambda camera: ""
    judge: Callable[[Reply, MessageSize], Reply] = lambda reply, asked: reply
    audience: Audience | None = None
    measured: Collection[int] = ()
    losses: LosesMessages | None = None
