"""What our fleet's nodes run: cameras in cohorts, over one running base. Knows memories; not who works where."""

from collections.abc import Mapping, Sequence

from flwr.app import Message, MessageType

from fed_lorac.client.global_model import RunningBase, caught_up, folded
from fed_lorac.client.handlers import Node, Own, answers, keeping, raised, told_round
from fed_lorac.client.state import folded_round
from fed_lorac.config import Config
from fed_lorac.config.rules import Scalar
from fed_lorac.errors import FrameError
from fed_lorac.experiment.experiment import Site, site_of
from fed_lorac.grid.executor import Answer, Visit
from fed_lorac.wire.base_tags import running_fingerprint, whole_fingerprint
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.header import base_tag
from fed_lorac.wire.updates import read_base, read_updates

__all__ = ["Bases", "FleetApp"]


class Bases:
    """The running base that messages lead to, folded once for the whole fleet."""

    def __init__(self, site: Site) -> None:
        self._site, self._latest = site, RunningBase()

    def restore(self, updates: Sequence[tuple[int, bytes]]) -> None:
        """Go on where these (round, frame) lead to."""
        self._latest = folded(self._site, RunningBase(), updates)

    def after(self, messages: Sequence[Message]) -> RunningBase:
        """The base of a camera that has folded all that is in `messages`."""
        contents = {id(message.content): message.content for message in messages}
        new = {
            round: frame
            for content in contents.values()
            for round, frame in read_updates(content)
            if round > self._latest.round
        }
        wholes = [whole for content in contents.values() if (whole := read_base(content)) is not None]
        # All whole bases of one round are one; with it come no updates, and it is needed where nobody was sent those.
        self._latest = caught_up(self._site, self._latest, max(wholes, default=None), new.items())
        return self._latest


class FleetApp:
    """Our cameras. `shared` is the running base that the round's messages lead to.

    Args:
        flat: the run's config as plain values, which cross process borders.
    """

    def __init__(self, flat: Mapping[str, Scalar]) -> None:
        self._site = site_of(Config.from_flat(flat))

    def answer(self, visits: Sequence[Visit], shared: RunningBase) -> list[Answer]:
        """Cameras that lack an update say so, the others answer together."""
        chains: dict[tuple[int, int], int] = {}
        able = {visit.camera for visit in visits if self._reached(visit, chains) == shared.round}
        nodes = [Node(visit.camera, visit.message, visit.state) for visit in visits if visit.camera in able]
        said = iter(answers(self._site, shared, nodes) if nodes else ())
        return [_answered(visit, shared, *next(said)) if visit.camera in able else _behind(visit) for visit in visits]

    def _reached(self, visit: Visit, chains: dict[tuple[int, int], int]) -> int:
        """The round that a camera has folded once it has folded what it was sent; -1 where something is missing."""
        content, folded = visit.message.content, folded_round(visit.state)
        key = (id(content), folded)  # cameras that were sent the same share it
        if key not in chains:
            chains[key] = _chain(read_base(content), read_updates(content), self._site.base.fingerprint, folded)
        return chains[key]


def _chain(whole: tuple[int, bytes] | None, updates: Sequence[tuple[int, bytes]], base: str, folded: int) -> int:
    if whole is not None and whole[0] > folded:
        folded, frame = whole
        if inspect(frame).base_tag != base_tag(whole_fingerprint(base, folded)):
            return -1
    for round, frame in sorted(updates):
        if round > folded:
            if inspect(frame).base_tag != base_tag(running_fingerprint(base, folded)):
                return -1
            folded = round
    return folded


def _answered(visit: Visit, shared: RunningBase, reply: Message, own: Own) -> Answer:
    return Answer(reply, keeping(visit.state, visit.message, shared.round, own))


def _behind(visit: Visit) -> Answer:
    if visit.message.metadata.message_type == MessageType.EVALUATE:
        return Answer(told_round(visit.message, visit.state), visit.state)
    lack = FrameError("A camera that trains has folded every update; this one lacks some. Send it what it missed.")
    return Answer(raised(visit.message, lack), visit.state)
