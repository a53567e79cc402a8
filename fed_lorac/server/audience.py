"""Who hears an update without a message of their own: all of a large fleet but those that are asked or measured.
Knows cameras by number, their links and rounds; not frames or Flower.

What each camera has heard is one number, four bytes. Those of one link that had heard as much are sent the same: it is
weighed once, and billed by count. Of the cameras it loops over those alone that
are away, or have a message of their own.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_lorac.wire.billing import MessageSize

__all__ = ["Audience", "Hearers", "ToldAlike"]


@dataclass(frozen=True, eq=False)
class Hearers:
    """Cameras of one link, ascending, that had all heard up to the same round before."""

    link: str
    heard: int
    cameras: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ToldAlike:
    """What cameras of one link were each sent in a round, how many updates that made up for, and whether it was the
    round's alone."""

    link: str
    size: MessageSize
    updates: int
    cameras: NDArray[np.int64]
    fresh: bool

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.cameras)


class Audience:
    """How far each camera has heard.

    Args:
        links: the names of the fleet's links.
        places: of each camera the place of its link among them, shape (cameras,).
    """

    def __init__(self, links: Sequence[str], places: NDArray[np.int64]) -> None:
        self._links, self._places = links, places
        self.heard = np.zeros(len(places), np.int32)

    def get(self, camera: int, unknown: int = 0) -> int:
        """The last round that this camera has heard."""
        return int(self.heard[camera])

    def __setitem__(self, camera: int, round: int) -> None:
        self.heard[camera] = round

    def restore(self, heard: NDArray[np.int32]) -> None:
        """Go on where another stood whose `heard` this was."""
        self.heard = np.array(heard, np.int32)

    def tell(self, round: int, away: Collection[int], apart: Collection[int]) -> Iterator[Hearers]:
        """Everyone who lacks something hears all up to `round`, but for cameras that are away and those apart.

        Each kind of hearer comes once, those who had heard least first.
        """
        reached = self.heard < round
        for those in (away, apart):
            reached[np.fromiter(those, np.int64, len(those))] = False
        cameras = np.flatnonzero(reached)
        kinds = self.heard[cameras].astype(np.int64) * len(self._links) + self._places[cameras]
        self.heard[cameras] = round
        order = np.argsort(kinds, kind="stable")
        begins = np.flatnonzero(np.diff(kinds[order], prepend=-1))
        for group in np.split(order, begins[1:]) if len(order) else ():
            heard, link = divmod(int(kinds[group[0]]), len(self._links))
            yield Hearers(self._links[link], heard, cameras[group])
