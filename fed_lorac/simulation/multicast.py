"""A round's update where one transmission brings it to all cameras of a link: what each hears, who asks for it again,
and what is billed. Knows reports, links and full fine-tuning's messages; not rows.

Who asks again is drawn (`Losses.asks_again`), with the same draw for full fine-tuning's frame, which may lose a packet
where a shorter one does not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fed_lorac.fleet.clock import Heard
from fed_lorac.fleet.fleet import Camera, Fleet
from fed_lorac.fleet.losses import Losses
from fed_lorac.radio.link import Crossing, Link, crossed, heard
from fed_lorac.server.audience import ToldAlike
from fed_lorac.server.replies import RoundReport
from fed_lorac.wire.billing import FullMessages, MessageSize, Reference

__all__ = ["Multicast"]


@dataclass(frozen=True)
class Multicast:
    """The update of a round in a fleet of which some links have multicast; other links, and whatever else goes down,
    are as ever."""

    report: RoundReport
    fleet: Fleet

    @cached_property
    def _links(self) -> Mapping[str, Link]:
        return {name: link for name, link in self.fleet.links.items() if link.multicasts}

    def _asks(self, link: str, cameras: NDArray[np.int64], n_bytes: int) -> NDArray[np.bool_]:
        """Which of these ask again."""
        return Losses(self.fleet).asks_again(self.report.round, link, cameras, n_bytes)

    def _asking(self, link: str, cameras: NDArray[np.int64], n_bytes: int) -> int:
        """How many of these ask again."""
        return int(np.count_nonzero(self._asks(link, cameras, n_bytes)))

    def _hears(self, camera: Camera) -> bool:
        return camera.id in self.report.fresh_for and camera.link in self._links

    def update(self, camera: Camera, n_bytes: int | None = None) -> Crossing | None:
        """How a camera hears the round's update, once more where it asks; None where not by multicast. `n_bytes`: of
        another frame in its place."""
        if not self._hears(camera):
            return None
        over, size = self._links[camera.link], self.report.fresh_for[camera.id].frame_bytes
        size = size if n_bytes is None else n_bytes
        found = heard(over, size)
        asks = self._asking(camera.link, np.array([camera.id]), size)
        return found + heard(over, size, again=True) if asks else found

    def down(self, camera: Camera, before: int = 0) -> Crossing | None:
        """All that a camera hears in the round, after so many bytes of it."""
        if (update := self.update(camera)) is None:
            return None
        alone = self.report.down.get(camera.id, MessageSize()) + self.report.fresh_for[camera.id].times(-1)
        return crossed(self._links[camera.link], max(0, alone.frame_bytes - before), up=False) + update

    def full_down(self, camera: Camera, full: FullMessages) -> Crossing | None:
        """The same of full fine-tuning's messages."""
        if (update := self.update(camera, full.down.frame_bytes)) is None:
            return None
        others = [*self.report.updates_for[camera.id]]
        others.remove(1)  # which brought the round's update alone
        alone = full.told_each(others)
        return crossed(self._links[camera.link], alone.frame_bytes, up=False) + update

    def together(self, alike: ToldAlike, n_bytes: int) -> list[Heard] | None:
        """How cameras that hear an update of so many bytes together each hear it, and those that ask once more; None
        where not by multicast."""
        if not (alike.fresh and alike.link in self._links):
            return None
        over, asks = self._links[alike.link], self._asks(alike.link, alike.cameras, n_bytes)
        once = heard(over, n_bytes)
        found = ((alike.cameras[~asks], once), (alike.cameras[asks], once + heard(over, n_bytes, again=True)))
        return [(cameras, message) for cameras, message in found if len(cameras)]

    @property
    def repeated_on_air(self) -> int:
        """Bytes on the air that cameras' own add up to beyond what was transmitted."""
        return sum(
            (count - 1) * heard(self._links[link], size.frame_bytes).bytes_on_air
            for (link, _, size), count in self.report.fresh.items()
            if link in self._links
        )

    def columns(self, unicast: Mapping[str, int], reference: Reference) -> dict[str, int]:
        """A round's columns of bytes as they are billed, and those of a copy to each camera beside them."""
        found = dict(unicast)
        arms = {"": None, "full_": reference.same_codec.down, "full_fp32_": reference.fp32.down}
        for whose, update in arms.items():
            saved = self._repeated() if update is None else update.times(self._full_repeats)
            repairs = sum(self._repairs(update), MessageSize())
            for name, more in vars(repairs + saved.times(-1)).items():
                found[f"{whose}unicast_downlink_{name}"] = unicast[f"{whose}downlink_{name}"]
                found[f"{whose}downlink_{name}"] += more
        return found | {"cameras_repaired": self._repaired}

    def _repeated(self) -> MessageSize:
        """What copies to the second camera and those after it would weigh, of those that hear the same."""
        copies = ((size, count - 1) for (link, _, size), count in self.report.fresh.items() if link in self._links)
        return sum((size.times(count) for size, count in copies), MessageSize())

    @property
    def _full_repeats(self) -> int:
        """Of full fine-tuning, where nobody has a part of its own: one is sent a link."""
        on = [(link, count) for (link, *_), count in self.report.fresh.items() if link in self._links]
        return sum(count for _, count in on) - len({link for link, _ in on})

    def _repairs(self, update: MessageSize | None) -> Iterator[MessageSize]:
        """What copies weigh to those that ask again; `update`: of this in the place of the round's own."""
        for link, cameras, own in self._listeners():
            size = update or own
            yield size.times(self._asking(link, cameras, size.frame_bytes))

    @property
    def _repaired(self) -> int:
        """How many cameras ask again for this method's update."""
        return sum(self._asking(link, cameras, own.frame_bytes) for link, cameras, own in self._listeners())

    def _listeners(self) -> Iterator[tuple[str, NDArray[np.int64], MessageSize]]:
        """Cameras that hear the update by multicast, with their link, and what it weighs."""
        for camera, size in self.report.fresh_for.items():
            if (link := self.fleet.cameras[camera].link) in self._links:
                yield link, np.array([camera]), size
        for alike in self.report.told:
            if alike.fresh and alike.link in self._links:
                yield alike.link, alike.cameras, alike.size
