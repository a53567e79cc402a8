"""What each camera has still to be told, and how many bytes that takes. Knows updates as frames and Flower's
records; not how an update came about, nor which nodes there are."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, RecordDict

from fed_lorac.wire.billing import MessageSize, frame_record, message_bytes
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.updates import PERSONAL_KEY, update_key, whole_model_key

__all__ = ["Downlink", "DownlinkMessage", "EncodeGlobalModel", "Update"]

CONFIG_KEY = "config"  # Flower's own name in a message


@dataclass(frozen=True)
class Update:
    """What a round added to the base, as it crosses the radio."""

    round: int
    frame: bytes = field(repr=False)


EncodeGlobalModel = Callable[[Sequence[Update]], bytes]
"""All updates so far -> the global model that they lead to, as one frame."""


@dataclass(frozen=True)
class DownlinkMessage:
    """A message's content, its size, and how many updates it makes up for, be they in it or in a whole global model."""

    content: RecordDict
    size: MessageSize
    updates: int


@dataclass
class Downlink:
    """All updates so far, and the last round that each camera says it has folded (0 for one that said nothing).

    With `encode_global_model`, a camera that missed several updates is sent the global model itself where that is
    smaller. `personal_update` says what a camera is to have beside it, and since which round; a camera that has not
    confirmed that round is sent it.
    """

    updates: list[Update] = field(default_factory=list)
    confirmed: dict[int, int] = field(default_factory=dict)
    encode_global_model: EncodeGlobalModel | None = None
    personal_update: Callable[[int], Update | None] = lambda camera: None
    _base: tuple[int, bytes] | None = field(default=None, init=False, repr=False)

    @property
    def folded_round(self) -> int:
        """The round of the last update, 0 before the first."""
        return self.updates[-1].round if self.updates else 0

    def confirm(self, camera: int, folded_round: object) -> None:
        """Take a camera's word for what it has folded, where it can be true."""
        if isinstance(folded_round, int) and 0 <= folded_round <= self.folded_round:
            self.confirmed[camera] = folded_round

    def messages_down(
        self, cameras: Iterable[int], config: ConfigRecord, message_type: str
    ) -> dict[int, DownlinkMessage]:
        """Each camera's message: the updates it has not confirmed and the config.

        Cameras that lack the same share one message_down, built and measured once.
        """
        lack = {camera: self._lacking(camera, self.confirmed.get(camera, 0)) for camera in cameras}
        made = {lacks: self._message_down(*lacks, config, message_type) for lacks in set(lack.values())}
        return {camera: made[lacks] for camera, lacks in lack.items()}

    def _lacking(self, camera: int, folded: int) -> tuple[int, Update | None]:
        personal = self.personal_update(camera)
        return folded, personal if personal is not None and personal.round > folded else None

    def _message_down(
        self, folded: int, personal: Update | None, config: ConfigRecord, message_type: str
    ) -> DownlinkMessage:
        missed = [update for update in self.updates if update.round > folded]
        frames = self._smallest(missed) | ({} if personal is None else {PERSONAL_KEY: personal.frame})
        content = RecordDict({key: frame_record(frame) for key, frame in frames.items()})
        content[CONFIG_KEY] = config
        payload = sum(inspect(frame).payload_bytes for frame in frames.values())
        size = sum(map(len, frames.values()))
        return DownlinkMessage(content, MessageSize(payload, size, message_bytes(content, message_type)), len(missed))

    def _smallest(self, missed: Sequence[Update]) -> dict[str, bytes]:
        """Frames by key: the updates that were missed, or the global model that they lead to, whichever is smaller."""
        updates = {update_key(update.round): update.frame for update in missed}
        if self.encode_global_model is None or len(missed) < 2:  # one update is all there is to tell
            return updates
        if self._base is None or self._base[0] != self.folded_round:
            self._base = self.folded_round, self.encode_global_model(self.updates)
        round, frame = self._base
        return {whole_model_key(round): frame} if len(frame) < sum(map(len, updates.values())) else updates
