"""Which messages a fleet's links lose, and who asks for a multicast update again. Knows cameras' links and streams; not
what is in a message.

A message arrives with the probability that each of its packets does (`Crossing.arrives`), by one draw for each camera,
round and way: more packets or more loss never bring a message through that fewer or less would not.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fed_lorac.fleet.fleet import Fleet
from fed_lorac.radio.link import crossed, heard
from fed_lorac.seeds import stream

__all__ = ["Losses"]


@dataclass(frozen=True, eq=False)
class Losses:
    """The losses of one fleet."""

    fleet: Fleet

    def up(self, round: int, camera: int, n_bytes: int) -> bool:
        """Whether a camera's reply of so many bytes is lost, after all of its repetitions."""
        over = self.fleet.links[self.fleet.cameras[camera].link]
        arrives = crossed(over, n_bytes, up=True).arrives
        return arrives < 1 and bool(self._draws("uplink loss", round)[camera] >= arrives)

    def down(
        self, round: int, kind: str, link: str, cameras: NDArray[np.int64], n_bytes: int, *, update: bool
    ) -> NDArray[np.bool_]:
        """Of cameras on a link, who does not hear a message of so many bytes.

        Args:
            round: the round.
            kind: what messages of a round are told apart by: Flower's message type.
            link: the link's name.
            cameras: their ids.
            n_bytes: of the frames that each is sent.
            update: whether it is the round's update alone, which goes by multicast where the link has that. Who loses
                a part of it asks again, so it is lost with the repair alone.
        """
        over = self.fleet.links[link]
        by_multicast = update and over.multicasts
        arrives = (heard(over, n_bytes, again=True) if by_multicast else crossed(over, n_bytes, up=False)).arrives
        if arrives == 1:
            return np.zeros(len(cameras), np.bool_)
        lost = self._draws(f"downlink loss, {kind}", round)[cameras] >= arrives
        return lost & self.asks_again(round, link, cameras, n_bytes) if by_multicast else lost

    def asks_again(self, round: int, link: str, cameras: NDArray[np.int64], n_bytes: int) -> NDArray[np.bool_]:
        """Of cameras that hear an update of so many bytes by multicast, who asks for it again alone."""
        return self._draws("repair", round)[cameras] < self.fleet.links[link].repaired(n_bytes)

    def _draws(self, name: str, round: int) -> NDArray[np.float64]:
        return _draws(self.fleet.seed, name, round, len(self.fleet.cameras))


@lru_cache(maxsize=8)
def _draws(seed: int, name: str, round: int, cameras: int) -> NDArray[np.float64]:
    """Kept, as each message of a round asks."""
    return stream(seed, name, round).random(cameras)
