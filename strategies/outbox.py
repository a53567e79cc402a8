"""What each camera has still to be told, and what telling weighs. Knows updates as frames and Flower's records; not
how an update came about, nor which nodes there are."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, RecordDict

from fed_lorac.wire.codec import inspect
from fed_lorac.wire.meter import Weight, frame_record, message_bytes
from fed_lorac.wire.updates import update_key

__all__ = ["Outbox", "Parcel", "Update"]

CONFIG_KEY = "config"  # Flower's own name in a message


@dataclass(frozen=True)
class Update:
    """What a round added to the base, as it crosses the radio."""

    round: int
    frame: bytes = field(repr=False)


@dataclass(frozen=True)
class Parcel:
    """A message's content, what it weighs, and how many updates are in it."""

    content: RecordDict
    weight: Weight
    updates: int


@dataclass
class Outbox:
    """All updates so far, and the last round that each camera says it has folded (0 for one that said nothing)."""

    updates: list[Update] = field(default_factory=list)
    confirmed: dict[int, int] = field(default_factory=dict)

    @property
    def folded_round(self) -> int:
        """The round of the last update, 0 before the first."""
        return self.updates[-1].round if self.updates else 0

    def confirm(self, camera: int, folded_round: object) -> None:
        """Take a camera's word for what it has folded, where it can be true."""
        if isinstance(folded_round, int) and 0 <= folded_round <= self.folded_round:
            self.confirmed[camera] = folded_round

    def parcels(self, cameras: Iterable[int], config: ConfigRecord, message_type: str) -> dict[int, Parcel]:
        """Each camera's message: the updates it has not confirmed and the config.

        Cameras that have the same updates share one parcel, built and weighed once.
        """
        have = {camera: self.confirmed.get(camera, 0) for camera in cameras}
        made = {folded: self._parcel(folded, config, message_type) for folded in set(have.values())}
        return {camera: made[folded] for camera, folded in have.items()}

    def _parcel(self, folded: int, config: ConfigRecord, message_type: str) -> Parcel:
        missed = [update for update in self.updates if update.round > folded]
        content = RecordDict({update_key(update.round): frame_record(update.frame) for update in missed})
        content[CONFIG_KEY] = config
        payload = sum(inspect(update.frame).payload_bytes for update in missed)
        frames = sum(len(update.frame) for update in missed)
        return Parcel(content, Weight(payload, frames, message_bytes(content, message_type)), len(missed))
