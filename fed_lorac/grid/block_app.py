"""What our fleet's nodes run: cameras in blocks, over one global model. Knows updates and states; not workers."""

from collections.abc import Mapping, Sequence

from flwr.app import Message, MessageType

from fed_lorac.client.global_model import GlobalModel, catch_up, fold_updates
from fed_lorac.client.handlers import error_reply, handle, report_folded_round
from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.client.state import ClientState
from fed_lorac.config import Config
from fed_lorac.errors import FrameError
from fed_lorac.experiment.experiment import Experiment, build_experiment
from fed_lorac.runtime.settings import Scalar
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.layout import base_tag
from fed_lorac.wire.updates import global_fingerprint, read_base, read_updates, whole_fingerprint

__all__ = ["FleetApp", "GlobalModels"]


class GlobalModels:
    """The global model that messages lead to, folded once for the whole fleet."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._latest = experiment, GlobalModel()

    def restore(self, updates: Sequence[tuple[int, bytes]]) -> None:
        """Go on from the model that these (round, frame) lead to."""
        self._latest = fold_updates(self._experiment, GlobalModel(), updates)

    def after(self, messages: Sequence[Message]) -> GlobalModel:
        """The model of a camera that has folded all that is in `messages`."""
        contents = {id(message.content): message.content for message in messages}
        new = {
            round: frame
            for content in contents.values()
            for round, frame in read_updates(content)
            if round > self._latest.round
        }
        wholes = [whole for content in contents.values() if (whole := read_base(content)) is not None]
        # Whole models of one round are equal; one comes without updates, and is needed where nobody was sent those.
        self._latest = catch_up(self._experiment, self._latest, max(wholes, default=None), new.items())
        return self._latest


class FleetApp:
    """Our cameras. `shared` is the global model that the round's messages lead to.

    Args:
        flat: the run's config as plain values, which cross process borders.
    """

    def __init__(self, flat: Mapping[str, Scalar]) -> None:
        self._experiment = build_experiment(Config.from_flat(flat))

    def answer(self, requests: Sequence[ClientRequest], shared: GlobalModel) -> list[ClientReply]:
        """Cameras that lack an update say so, the others work together."""
        rounds: dict[tuple[int, int], int] = {}
        able = [request for request in requests if self._folds_up_to(request, rounds) == shared.round]
        replies = dict(zip(map(id, able), handle(self._experiment, shared, able) if able else (), strict=True))
        return [replies[id(request)] if id(request) in replies else _refuse(request) for request in requests]

    def _folds_up_to(self, request: ClientRequest, rounds: dict[tuple[int, int], int]) -> int:
        """The round that a camera has folded once it has folded what it was sent; -1 where something is missing."""
        content, folded = request.message.content, ClientState.read(request.state).folded_round
        key = (id(content), folded)  # cameras that were sent the same share it
        if key not in rounds:
            whole, updates = read_base(content), read_updates(content)
            rounds[key] = _fold_rounds(whole, updates, self._experiment.base.fingerprint, folded)
        return rounds[key]


def _fold_rounds(whole: tuple[int, bytes] | None, updates: Sequence[tuple[int, bytes]], base: str, folded: int) -> int:
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


def _refuse(request: ClientRequest) -> ClientReply:
    """The reply of a camera that lacks an update; its state stays as it is."""
    if request.message.metadata.message_type == MessageType.EVALUATE:
        return ClientReply(report_folded_round(request), request.state)
    lack = FrameError("A camera that trains has folded every update; this one lacks some. Send it what it missed.")
    return ClientReply(error_reply(request.message, lack), request.state)
