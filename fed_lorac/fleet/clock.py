"""Simulated time: when a reply would arrive, and how long a round takes. Knows links, bytes and images; reads no clock.

A round begins for all its cameras at once. A camera hears what it is asked, trains, waits until its air is free, sends;
at the end it hears the round's update. With `fleet.round_s` a reply that arrives after so many seconds is late: one
that was begun was sent in vain, is billed and takes up the air; one that could not be begun is not sent. So a camera
whose duty cycle keeps it silent waits its turn, and counts again once its air is free.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fed_lorac.config import FleetConfig, LocalConfig
from fed_lorac.fleet.fleet import Camera, Fleet
from fed_lorac.fleet.links import downlink_time_s, elapsed_s, link, send_s

__all__ = ["Clock", "Trip", "images_seen"]


@dataclass(frozen=True)
class Trip:
    """One camera's part in a round, in simulated seconds: what it hears when asked, its turn, and when its reply is
    there, from the beginning of the round. `sent` is false where it could not begin in time."""

    downlink_bytes: int
    compute_s: float
    reply_s: float
    late: bool
    sent: bool


class Clock:
    """Where simulated time stands, and until when each camera's air is taken."""

    def __init__(self, fleet: Fleet, config: FleetConfig, local: LocalConfig) -> None:
        self._cameras, self._local = fleet.cameras, local
        self._image_time_s, self._round_s = config.image_time_s, config.round_s
        self.now_s = 0.0
        self.air_free_s: dict[int, float] = {}
        self.trips: dict[int, Trip] = {}

    def compute_s(self, camera: Camera) -> float:
        """How long a turn takes this camera: forward and backward, by the image."""
        return images_seen(len(camera.train), self._local) * self._image_time_s / camera.speed

    def trip(self, camera_id: int, downlink_bytes: int, uplink_bytes: int) -> Trip:
        """A camera was asked with so many bytes and answers with so many: once a round."""
        camera = self._cameras[camera_id]
        over, compute_s = link(camera.link), self.compute_s(camera)
        ready_s = self.now_s + downlink_time_s(downlink_bytes, over) + compute_s
        begins_s = max(ready_s, self.air_free_s.get(camera_id, 0.0))
        arrives_s = begins_s + send_s(uplink_bytes, over)
        ends_s = self.now_s + (self._round_s or float("inf"))
        if sent := begins_s <= ends_s:
            self.air_free_s[camera_id] = begins_s + elapsed_s(uplink_bytes, over)
        found = Trip(downlink_bytes, compute_s, arrives_s - self.now_s, arrives_s > ends_s, sent)
        self.trips[camera_id] = found
        return found

    def end(self, counted: Iterable[int], downlink_bytes: Mapping[int, int]) -> float:
        """Simulated seconds of the round: the slowest counted camera's, the update heard; `fleet.round_s` where none
        counted. `downlink_bytes` are all that each camera heard in it. A new round begins."""
        took_s = [self._heard_s(k, downlink_bytes.get(k, 0)) for k in counted if k in self.trips]
        round_s = max(took_s, default=self._round_s)
        self.now_s, self.trips = self.now_s + round_s, {}
        return round_s

    def _heard_s(self, camera: int, downlink_bytes: int) -> float:
        trip, over = self.trips[camera], link(self._cameras[camera].link)
        return trip.reply_s + downlink_time_s(max(0, downlink_bytes - trip.downlink_bytes), over)

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps of it."""
        return {"now_s": self.now_s, "air_free_s": {str(k): s for k, s in self.air_free_s.items()}}

    def restore(self, now_s: float = 0.0, air_free_s: Mapping[str, float] | None = None) -> None:
        """Go on where `state` says another stood."""
        self.now_s, self.air_free_s = now_s, {int(k): s for k, s in (air_free_s or {}).items()}


def images_seen(images: int, local: LocalConfig) -> int:
    """How many images a turn takes a camera through, repeats counted."""
    each = -(-images // local.batch_size)  # batches an epoch, the last of them what is left
    epochs, rest = divmod(local.steps or local.epochs * each, each)
    return epochs * images + min(images, rest * local.batch_size)
