"""Simulated time: when a reply would arrive, and how long a round takes. Knows cameras' links, bytes and seconds; reads
no clock.

A round begins for all its cameras at once. A camera receives the server's message, trains, waits until it may
send, and sends; at the end it receives the round's update. Where rounds have a length, a reply that
arrives later is late: one that was begun was sent in vain, is billed and takes up the air; one that could not be begun
is not sent. So a camera whose duty cycle keeps it silent waits, and counts again once its air is free.

Where hearing takes packets of its own, as in LoRaWAN's class A, a camera hears only once its air is free.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from fed_lorac.radio.link import Crossing, Link, crossed

if TYPE_CHECKING:
    from fed_lorac.fleet.fleet import Camera

__all__ = ["Clock", "Trip", "images_seen"]


@dataclass(frozen=True)
class Trip:
    """One camera's part in a round, in simulated seconds: what it receives, its training, and when its reply is
    there, from the beginning of the round. `sent` is false where it could not begin in time."""

    downlink_bytes: int
    compute_s: float
    reply_s: float
    late: bool
    sent: bool


class Clock:
    """Where simulated time stands, and until when each camera's air is taken."""

    def __init__(
        self,
        cameras: "Sequence[Camera]",
        links: Mapping[str, Link],
        compute_s: Callable[[int], float],
        round_s: float = 0.0,
    ) -> None:
        """Set the clock to 0.

        Args:
            cameras: the fleet's, in the order of their ids.
            links: each link of theirs by its name.
            compute_s: camera -> how long it trains in a round.
            round_s: seconds after which a reply is late; 0: none is.
        """
        self._cameras, self._links, self._compute_s, self._round_s = cameras, links, compute_s, round_s
        self.now_s = 0.0
        self.air_free_s: dict[int, float] = {}
        self.trips: dict[int, Trip] = {}

    def link(self, camera: int) -> Link:
        """A camera's link."""
        return self._links[self._cameras[camera].link]

    def trip(self, camera_id: int, downlink_bytes: int, uplink_bytes: int) -> Trip:
        """A camera was asked with so many bytes and answers with so many: once a round."""
        over, compute_s = self.link(camera_id), self._compute_s(camera_id)
        ready_s = self._hear(camera_id, self.now_s, crossed(over, downlink_bytes, up=False)) + compute_s
        begins_s = max(ready_s, self.air_free_s.get(camera_id, 0.0))
        reply = crossed(over, uplink_bytes, up=True)
        arrives_s = begins_s + reply.takes_s
        ends_s = self.now_s + (self._round_s or float("inf"))
        if sent := begins_s <= ends_s:
            self.air_free_s[camera_id] = begins_s + reply.busy_s
        found = Trip(downlink_bytes, compute_s, arrives_s - self.now_s, arrives_s > ends_s, sent)
        self.trips[camera_id] = found
        return found

    def end(
        self,
        counted: Iterable[int],
        downlink_bytes: Mapping[int, int],
        updates: Mapping[int, Crossing] = MappingProxyType({}),
    ) -> float:
        """Simulated seconds of the round: the slowest counted camera's, the update heard; the length of a round where
        none counted. `downlink_bytes` are all that each camera heard in it; `updates` the update, of cameras that did
        not hear it as a message of their own. A new round begins."""
        took_s = [self._heard_s(k, downlink_bytes.get(k, 0), updates.get(k)) for k in counted if k in self.trips]
        round_s = max(took_s, default=self._round_s)
        self.now_s, self.trips = self.now_s + round_s, {}
        return round_s

    def _heard_s(self, camera: int, downlink_bytes: int, update: Crossing | None) -> float:
        trip = self.trips[camera]
        update = update or crossed(self.link(camera), max(0, downlink_bytes - trip.downlink_bytes), up=False)
        return self._hear(camera, self.now_s + trip.reply_s, update) - self.now_s

    def _hear(self, camera: int, from_s: float, message: Crossing) -> float:
        """When a message that comes from then on is heard; asking for it, where that has to be, takes up the air."""
        if not (message.transmit_s and self.link(camera).duty_cycle < 1):
            return from_s + message.takes_s
        begins_s = max(from_s, self.air_free_s.get(camera, 0.0))
        self.air_free_s[camera] = begins_s + message.busy_s
        return begins_s + message.takes_s

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps of it."""
        return {"now_s": self.now_s, "air_free_s": {str(k): s for k, s in self.air_free_s.items()}}

    def restore(self, now_s: float = 0.0, air_free_s: Mapping[str, float] | None = None) -> None:
        """Go on where `state` says another stood."""
        self.now_s, self.air_free_s = now_s, {int(k): s for k, s in (air_free_s or {}).items()}


def images_seen(images: int, *, batch_size: int, epochs: int, steps: int) -> int:
    """How many images a round's training takes a camera through, repeats counted; `steps` 0: by epochs."""
    each = -(-images // batch_size)  # batches an epoch, the last of them what is left
    whole, rest = divmod(steps or epochs * each, each)
    return whole * images + min(images, rest * batch_size)
