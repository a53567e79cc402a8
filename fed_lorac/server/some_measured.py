"""Rounds in which a sample of the cameras is measured. Knows who is told what, alone or with many; not how an update
came about, nor what replies hold.

Those who are asked to train, or measured, have a message each. The others hear the round's update together, as an
audience.
"""

from abc import abstractmethod
from collections.abc import Collection

from flwr.app import ConfigRecord, Message, MessageType

from fed_lorac.server.audience import Audience, Hearers, ToldAlike
from fed_lorac.server.replies import RoundReport
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.unheard import heard_together

__all__ = ["SomeMeasured"]


class SomeMeasured:
    """What a strategy does where not all cameras are measured."""

    rules: FleetRules
    report: RoundReport

    @property
    @abstractmethod
    def latest(self) -> int:
        """How far a camera has heard that lacks nothing."""

    @abstractmethod
    def told(self, hearers: Hearers, config: ConfigRecord) -> ToldAlike:
        """What each of these is sent, up to the latest."""

    @abstractmethod
    def messages(
        self, cameras: Collection[int], message_type: str, server_round: int, config: ConfigRecord
    ) -> list[Message]:
        """A message to each of these cameras, billed."""

    def messages_to_some(
        self, audience: Audience, away: Collection[int], server_round: int, config: ConfigRecord
    ) -> list[Message]:
        """A message to each that is measured or was asked to train, where it can be reached; all others hear together
        what they lack, weighed once for those who lack the same. Before the first round there is nothing to hear."""
        report = self.report
        asked = {reply.camera for reply in report.replies} if server_round else set()
        report.listed = sorted(camera for camera in {*self.rules.measured, *asked} if camera not in away)
        messages = self.messages(report.listed, MessageType.EVALUATE, server_round, config)
        for hearers in audience.tell(self.latest, away, report.listed):
            alike = self.told(hearers, config)
            report.told.append(alike)
            if self.rules.losses:
                heard_together(self.rules.losses, report, audience, alike, hearers.heard)
            report.caught_up[alike.updates] += alike.count
            if alike.fresh:
                report.fresh[alike.link, None, alike.size] += alike.count
        return messages
