"""Simulated time: when a reply would arrive, and how long a round takes. Knows cameras' links, bytes and seconds; reads
no clock.

A round begins for all its cameras at once. A camera receives the server's message, trains, waits until it may
send, and sends. Where rounds have a length, a reply that arrives later is late: one that was begun was sent in vain, is
billed and takes up the air; one that could not be begun is not sent. So a camera whose duty cycle keeps it silent
waits, and counts again once its air is free.

The update is sent once the last reply that counts is there: to all cameras, whether they were asked or not. Where
hearing takes packets of its own, as in LoRaWAN's class A, a camera hears only once its air is free, and that takes it
up again. A round lasts until the slowest counted camera has heard; who is slower still hears while the next goes on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fed_lorac.radio.link import Crossing, Link, crossed

if TYPE_CHECKING:
    from fed_lorac.fleet.fleet import Camera

__all__ = ["Clock", "Heard", "Trip", "images_seen"]

Heard = tuple[Sequence[int] | NDArray[np.int64], Crossing]
"""Cameras of one link, at least one, and a message as each of them hears it."""


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
        self._air_free_s = np.zeros(len(cameras))  # eight bytes a camera: a million may hear an update
        self.trips: dict[int, Trip] = {}

    def link(self, camera: int) -> Link:
        """A camera's link."""
        return self._links[self._cameras[camera].link]

    def trip(self, camera_id: int, downlink_bytes: int, uplink_bytes: int) -> Trip:
        """A camera was asked with so many bytes and answers with so many: once a round."""
        over, compute_s = self.link(camera_id), self._compute_s(camera_id)
        [heard_s] = self._hear([camera_id], self.now_s, crossed(over, downlink_bytes, up=False))
        begins_s = float(max(heard_s + compute_s, self._air_free_s[camera_id]))
        reply = crossed(over, uplink_bytes, up=True)
        arrives_s = begins_s + reply.takes_s
        ends_s = self.now_s + (self._round_s or float("inf"))
        if sent := begins_s <= ends_s:
            self._air_free_s[camera_id] = begins_s + reply.busy_s
        found = Trip(downlink_bytes, compute_s, arrives_s - self.now_s, arrives_s > ends_s, sent)
        self.trips[camera_id] = found
        return found

    def end(self, counted: Iterable[int], sent: Iterable[Heard] = ()) -> float:
        """Simulated seconds of the round: until the slowest counted camera has heard what it is `sent` at the end,
        each camera once; where none counted, the length of a round, or until the last reply. A new round begins."""
        its = [camera for camera in counted if camera in self.trips]
        waited_s = max((self.trips[camera].reply_s for camera in its), default=self._in_vain_s())
        heard_s = np.full(len(self._cameras), self.now_s + waited_s)
        for cameras, message in sent:
            heard_s[cameras] = self._hear(cameras, self.now_s + waited_s, message)
        round_s = float(heard_s[its].max()) - self.now_s if its else waited_s
        self.now_s, self.trips = self.now_s + round_s, {}
        return round_s

    def _in_vain_s(self) -> float:
        """How long replies were waited for of which none counts."""
        return self._round_s or max((trip.reply_s for trip in self.trips.values()), default=0.0)

    def _hear(
        self, cameras: Sequence[int] | NDArray[np.int64], from_s: float, message: Crossing
    ) -> NDArray[np.float64]:
        """When each of them has heard a message that comes from then on; asking for it, where that has to be, takes up
        the air."""
        if not (message.transmit_s and self.link(int(cameras[0])).duty_cycle < 1):
            return np.full(len(cameras), from_s + message.takes_s)
        begins_s = np.maximum(from_s, self._air_free_s[cameras])
        self._air_free_s[cameras] = begins_s + message.busy_s
        return begins_s + message.takes_s

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps of it; air that is free keeps nobody waiting."""
        taken = np.flatnonzero(self._air_free_s > self.now_s)
        return {"now_s": self.now_s, "air_free_s": {str(k): float(self._air_free_s[k]) for k in taken}}

    def restore(self, now_s: float = 0.0, air_free_s: Mapping[str, float] | None = None) -> None:
        """Go on where `state` says another stood."""
        self.now_s = now_s
        self._air_free_s[:] = 0.0
        for camera, free_s in (air_free_s or {}).items():
            self._air_free_s[int(camera)] = free_s


def images_seen(images: int, *, batch_size: int, epochs: int, steps: int) -> int:
    """How many images a round's training takes a camera through, repeats counted; `steps` 0: by epochs."""
    each = -(-images // batch_size)  # batches an epoch, the last of them what is left
    whole, rest = divmod(steps or epochs * each, each)
    return whole * images + min(images, rest * batch_size)
