"""Full fine-tuning's messages for the same model: what every share is of. Knows bytes; not how they were measured."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FullMessages", "Reference"]


@dataclass(frozen=True)
class FullMessages:
    """Bytes of full fine-tuning's messages for the same model, built and measured once.

    `down` has an update, `ask` no tensor, `whole` the model itself: for who missed updates that are larger together.
    """

    up: int
    down: int
    ask: int
    whole: int

    def told(self, updates: int) -> int:
        """What a camera that lacks so many updates is sent."""
        return min(updates * self.down, self.whole) if updates else 0


@dataclass(frozen=True)
class Reference:
    """The same messages under the run's own codec, and in fp32: the one that shares are of, whatever the codec."""

    same_codec: FullMessages
    fp32: FullMessages

    def columns(self, *, asked: int, answered: int, caught_up: Mapping[int, int]) -> dict[str, int]:
        """A round as ledger columns; `caught_up` counts messages by the number of updates that they make up for."""
        found = {}
        for name, full in (("full", self.same_codec), ("full_fp32", self.fp32)):
            told = sum(full.told(updates) * messages for updates, messages in caught_up.items())
            found[f"{name}_uplink_message_bytes"] = answered * full.up
            found[f"{name}_downlink_message_bytes"] = asked * full.ask + told
        return found
