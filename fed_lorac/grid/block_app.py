"""What our fleet's nodes run: cameras in blocks, over one running base. Knows memories; not who works where."""

from collections.abc import Mapping, Sequence

from flwr.app import Message, MessageType

from fed_lorac.client.global_model import GlobalModel, caught_up, folded
from fed_lorac.client.handlers import Node, Own, answers, keeping, raised, told_round
from fed_lorac.client.state import folded_round
from fed_lorac.config import Config
from fed_lorac.errors import FrameError
from fed_lorac.experiment.experiment import Experiment, build_experiment
from fed_lorac.grid.executor import Answer, ClientRequest
from fed_lorac.runtime.settings import Scalar
from fed_lorac.wire.base_tags import global_fingerprint, whole_fingerprint
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.header import base_tag
from fed_lorac.wire.updates import read_base, read_updates

__all__ = ["FleetApp", "GlobalModels"]


class GlobalModels:
    """The running base that messages lead to, folded once for the whole fleet."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._latest = experiment, GlobalModel()

    def restore(self, updates: Sequence[tuple[int, bytes]]) -> None:
        """Go on where these (round, frame) lead to."""
        self._latest = folded(self._experiment, GlobalModel(), updates)

    def after(self, messages: Sequence[Message]) -> GlobalModel:
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
        self._latest = caught_up(self._experiment, self._latest, max(wholes, default=None), new.items())
        return self._latest


class FleetApp:
    """Our cameras. `shared` is the running base that the round's messages lead to.

    Args:
        flat: the run's config as plain values, which cross process borders.
    """

    def __init__(self, flat: Mapping[str, Scalar]) -> None:
        self._experiment = build_experiment(Config.from_flat(flat))

    def answer(self, requests: Sequence[ClientRequest], shared: GlobalModel) -> list[Answer]:
        """Cameras that lack an update say so, the others answer together."""
        chains: dict[tuple[int, int], int] = {}
        able = {request.camera for request in requests if self._reached(request, chains) == shared.round}
        nodes = [Node(request.camera, request.message, request.state) for request in requests if request.camera in able]
        said = iter(answers(self._experiment, shared, nodes) if nodes else ())
        return [
            _answered(request, shared, *next(said)) if request.camera in able else _behind(request)
            for request in requests
        ]

    def _reached(self, request: ClientRequest, chains: dict[tuple[int, int], int]) -> int:
        """The round that a camera has folded once it has folded what it was sent; -1 where something is missing."""
        content, folded = request.message.content, folded_round(request.state)
        key = (id(content), folded)  # cameras that were sent the same share it
        if key not in chains:
            chains[key] = _chain(read_base(content), read_updates(content), self._experiment.base.fingerprint, folded)
        return chains[key]


def _chain(whole: tuple[int, bytes] | None, updates: Sequence[tuple[int, bytes]], base: str, folded: int) -> int:
    if whole is not None and whole[0] > folded:
        folded, frame = whole
        if inspect(frame).base_tag != base_tag(whole_fingerprint(base, folded)):
            return -1
    for round, frame in sorted(updates):
        if round > folded:
            if inspect(frame).base_tag != base_tag(global_fingerprint(base, folded)):
                return -1
            folded = round
    return folded


def _answered(request: ClientRequest, shared: GlobalModel, reply: Message, own: Own) -> Answer:
    return Answer(reply, keeping(request.state, request.message, shared.round, own))


def _behind(request: ClientRequest) -> Answer:
    if request.message.metadata.message_type == MessageType.EVALUATE:
        return Answer(told_round(request.message, request.state), request.state)
    lack = FrameError("A camera that trains has folded every update; this one lacks some. Send it what it missed.")
    return Answer(raised(request.message, lack), request.state)
