"""Messages that a radio loses. Knows who is told what, and that some of it does not arrive; not links, nor chance."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
from flwr.app import MessageType
from numpy.typing import NDArray

from fed_lorac.server.audience import Audience, ToldAlike
from fed_lorac.server.replies import Reply, RoundReport
from fed_lorac.wire.billing import MessageSize
from fed_lorac.wire.refusals import LOST

__all__ = ["LosesMessages", "heard_alone", "heard_together", "lost_on_the_way"]


class LosesMessages(Protocol):
    """Which messages are lost, by camera and round."""

    def up(self, round: int, camera: int, n_bytes: int) -> bool:
        """Whether a camera's reply is."""

    def down(
        self, round: int, kind: str, link: str, cameras: NDArray[np.int64], n_bytes: int, *, update: bool
    ) -> NDArray[np.bool_]:
        """Of cameras on a link, who does not hear a message; `update`: which is the round's update alone."""


class Sized(Protocol):
    """What a camera is sent."""

    @property
    def size(self) -> MessageSize:
        """What it weighs."""


M = TypeVar("M", bound=Sized)


def lost_on_the_way(losses: LosesMessages, round: int, reply: Reply) -> Reply:
    """A reply as it counts: left out where the radio lost it, after it was sent and billed."""
    if reply.counted and losses.up(round, reply.camera, reply.size.frame_bytes):
        return replace(reply, counted=False, reason=LOST)
    return reply


def heard_alone(
    losses: LosesMessages,
    report: RoundReport,
    link: Callable[[int], str],
    told: Mapping[int, M],
    message_type: str,
) -> dict[int, M]:
    """Those of the messages that arrive; who lost one is noted, has been billed, and lacks what was in it."""
    found: dict[int, M] = {}
    for camera, message in told.items():
        fresh = message_type == MessageType.EVALUATE and camera in report.fresh_for
        alone, size = np.array([camera]), message.size.frame_bytes
        if not losses.down(report.round, message_type, link(camera), alone, size, update=fresh)[0]:
            found[camera] = message
        elif message_type == MessageType.TRAIN:
            report.not_asked.add(camera)
        else:
            report.updates_lost += 1
    return found


def heard_together(
    losses: LosesMessages, report: RoundReport, audience: Audience, alike: ToldAlike, heard_before: int
) -> None:
    """Those of an audience that lost what they were told stay where they were."""
    size, kind = alike.size.frame_bytes, MessageType.EVALUATE
    lost = losses.down(report.round, kind, alike.link, alike.cameras, size, update=alike.fresh)
    audience.heard[alike.cameras[lost]] = heard_before
    report.updates_lost += int(np.count_nonzero(lost))
