"""How cameras answer messages, a block at a time. Knows Flower's messages; what a camera does is in `local_update`, and
what it goes on from in `state`. The global model is the same for all who have folded as much, so whoever calls this
brings it."""

import math
from collections.abc import Callable, Mapping, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from fed_lorac.client.evaluate_base import evaluate_base
from fed_lorac.client.local_update import LocalUpdate, Scores, evaluate, local_updates
from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.client.state import PARTS_KEY, STATISTICS_KEY, ClientState, GlobalModel, add_cluster_delta
from fed_lorac.client.survey import survey
from fed_lorac.config import Config
from fed_lorac.errors import FrameError, one_line
from fed_lorac.experiment.adapters import settled_on
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.runtime.allocator import keep_freed_memory
from fed_lorac.runtime.settings import Scalar
from fed_lorac.wire.billing import ARRAYS_KEY, OBSERVED_KEY, frame_record, observed_record
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.layout import base_tag
from fed_lorac.wire.refusals import DROPPED_OUT
from fed_lorac.wire.updates import PERSONAL_KEY, global_fingerprint, read_updates, read_whole_model, whole_fingerprint

__all__ = ["FleetApp", "error_reply", "handle", "report_folded_round"]


def handle(experiment: Experiment, global_model: GlobalModel, requests: Sequence[ClientRequest]) -> list[ClientReply]:
    """Each camera's reply, in order. All have folded up to `global_model`, and were sent one kind of message."""
    [kind] = {request.message.metadata.message_type for request in requests}
    return _HANDLERS[kind](settled_on(experiment, global_model.settled), global_model, requests)


def report_folded_round(request: ClientRequest) -> Message:
    """The reply of a camera that lacks updates: the last round that it has folded, so that it is sent the rest."""
    folded_round = ClientState.read(request.state).folded_round
    return _message(request, MetricRecord({"num-examples": 0, "folded-round": folded_round}))


def error_reply(message: Message, error: Exception) -> Message:
    """The reply of a camera that failed, on one line."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, one_line(error)), reply_to=message)


def _identify(
    experiment: Experiment, global_model: GlobalModel, requests: Sequence[ClientRequest]
) -> list[ClientReply]:
    """Say which camera each node is."""
    return [
        ClientReply(_message(request, MetricRecord({"camera": request.camera})), _state(request, global_model).write())
        for request in requests
    ]


def _train(experiment: Experiment, global_model: GlobalModel, requests: Sequence[ClientRequest]) -> list[ClientReply]:
    """Train and send a frame; where the server is still to settle something, say in it what that is made of. A camera
    whose reply will be lost does neither.

    It is then as if it had not been asked: its statistics stay, and so does the residual of the last frame that did
    arrive.
    """
    [round] = {int(_config(request)["server-round"]) for request in requests}  # type: ignore[arg-type]
    dropped = experiment.fleet.dropped(round)
    states = {request.camera: _state(request, global_model) for request in requests}
    able = {camera: state for camera, state in states.items() if camera not in dropped}
    updates: dict[int, LocalUpdate] = {}
    work = survey if experiment.plan.settles else local_updates
    for frame, block in _blocks(experiment, able):
        model = add_cluster_delta(experiment, global_model, frame) if frame else global_model
        updates |= work(experiment, model, round, block)
    return [
        _send(request, updates[request.camera])
        if request.camera in updates
        else ClientReply(_lose(request), states[request.camera].write())
        for request in requests
    ]


def _blocks(experiment: Experiment, states: dict[int, ClientState]) -> list[tuple[bytes, dict[int, ClientState]]]:
    """The cameras that can train side by side, with adapters of one shape over one model, by their cluster's delta."""
    blocks: dict[tuple[int, bytes], dict[int, ClientState]] = {}
    for camera, state in states.items():
        cluster = state.personal_frame if experiment.plan.clustered else b""
        blocks.setdefault((experiment.place(camera), cluster), {})[camera] = state
    return [(cluster, block) for (_, cluster), block in blocks.items()]


def _send(request: ClientRequest, update: LocalUpdate) -> ClientReply:
    metrics = MetricRecord({"num-examples": update.num_examples, "train-loss": update.train_loss})
    arrays = frame_record(update.frame) if update.frame else None
    message = _message(request, metrics, arrays)
    if update.observed:
        message.content[OBSERVED_KEY] = observed_record(update.observed)
    return ClientReply(message, update.state.write())


def _lose(request: ClientRequest) -> Message:
    return Message(Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, DROPPED_OUT), reply_to=request.message)


def _evaluate(
    experiment: Experiment, global_model: GlobalModel, requests: Sequence[ClientRequest]
) -> list[ClientReply]:
    """Where asked, evaluate the base model (round 0) or the current model, each in the round's weather.

    Where weather changes, the base model is evaluated again beside every model: only scores in one weather compare.
    """
    return [_evaluate_one(experiment, global_model, request) for request in requests]


def _evaluate_one(experiment: Experiment, global_model: GlobalModel, request: ClientRequest) -> ClientReply:
    config, state = _config(request), _state(request, global_model)
    round, drawn = int(config["server-round"]), request.camera in experiment.measured  # type: ignore[arg-type]
    asked, examples = drawn and bool(config.get("measure")), len(experiment.fleet.cameras[request.camera].evaluation)
    examples = min(examples, experiment.plan.evaluate_images or examples) if drawn else 0
    metrics = MetricRecord({"num-examples": examples, "folded-round": global_model.round})
    if (drawn and config.get("baseline")) or (asked and experiment.fleet.changing):
        source, zero_byte = evaluate_base(experiment, round, request.camera)
        metrics.update(_accuracies("source", source) | _accuracies("zero-byte", zero_byte))
    if asked:
        clustered = experiment.plan.clustered and state.personal_frame
        model = add_cluster_delta(experiment, global_model, clustered) if clustered else global_model
        scores, state = evaluate(experiment, model, round, request.camera, state)
        metrics.update(_accuracies("adapted", scores))
    message = _message(request, metrics)
    if config.get("statistics"):
        sent = [STATISTICS_KEY] * asked + [PERSONAL_KEY, PARTS_KEY]
        for key in (key for key in sent if key in state.records):
            message.content[key] = state.records[key]
    return ClientReply(message, state.write())


def _accuracies(name: str, scores: Scores) -> dict[str, float]:
    both = {f"{name}-accuracy": scores.weather, f"{name}-accuracy-clean": scores.clean}
    return {key: value for key, value in both.items() if not math.isnan(value)}


_HANDLERS: dict[str, Callable[[Experiment, GlobalModel, Sequence[ClientRequest]], list[ClientReply]]] = {
    MessageType.QUERY: _identify,
    MessageType.TRAIN: _train,
    MessageType.EVALUATE: _evaluate,
}


def _state(request: ClientRequest, global_model: GlobalModel) -> ClientState:
    """A camera's state once it has folded what its message holds."""
    return ClientState.read(request.state).after(request.message.content, global_model.round)


def _config(request: ClientRequest) -> ConfigRecord:
    return request.message.content.config_records["config"]


def _message(request: ClientRequest, metrics: MetricRecord, arrays: ArrayRecord | None = None) -> Message:
    content = RecordDict({"metrics": metrics})
    if arrays is not None:
        content[ARRAYS_KEY] = arrays
    return Message(content, reply_to=request.message)


class FleetApp:
    """Our cameras. `shared` is the global model that the round's messages lead to.

    Args:
        flat: the run's config as plain values, which cross process borders.
    """

    def __init__(self, flat: Mapping[str, Scalar]) -> None:
        keep_freed_memory()
        self._experiment = build_experiment(Config.from_flat(flat))

    def answer(self, requests: Sequence[ClientRequest], shared: GlobalModel) -> list[ClientReply]:
        """Reply that an update is missing for the cameras that lack one; the others work as one block."""
        rounds: dict[tuple[int, int], int] = {}
        able = [request for request in requests if self._folds_up_to(request, rounds) == shared.round]
        replies = dict(zip(map(id, able), handle(self._experiment, shared, able) if able else (), strict=True))
        return [replies[id(request)] if id(request) in replies else _refuse(request) for request in requests]

    def _folds_up_to(self, request: ClientRequest, rounds: dict[tuple[int, int], int]) -> int:
        """The round that a camera has folded once it has folded what it was sent; -1 where something is missing."""
        content, folded = request.message.content, ClientState.read(request.state).folded_round
        key = (id(content), folded)  # cameras that were sent the same share it
        if key not in rounds:
            whole, updates = read_whole_model(content), read_updates(content)
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
