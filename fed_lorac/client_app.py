"""The Flower ClientApp: one camera's messages. Knows Flower's records; what a camera does is in `camera`."""

import logging
import math
from collections.abc import Sequence

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.common.constant import ErrorCode

from fed_lorac.camera import Memory, Scores, baseline, evaluate, fold, take_turn
from fed_lorac.config import Config
from fed_lorac.site import Site, site_of
from fed_lorac.wire.faults import RefusedFrameError
from fed_lorac.wire.meter import ARRAYS_KEY, frame_record
from fed_lorac.wire.updates import read_updates

__all__ = ["app", "make_client_app"]

_KEPT = ("tensors", "factors", "statistics")
_shown: set[str] = set()  # what went wrong in this process, so that each trouble has one traceback


def make_client_app(config: Config | None = None, mods: Sequence[Mod] = ()) -> ClientApp:
    """The ClientApp of a config; without one, of the run-config that comes with each message's context.

    `mods` are Flower's: each stands around every message, the first outermost.
    """
    app = ClientApp(mods=[_answer_errors, *mods])

    def site(context: Context) -> Site:
        return site_of(config or Config.from_flat(context.run_config))

    @app.query()
    def roll_call(message: Message, context: Context) -> Message:
        """Which camera this node is."""
        return _reply(message, MetricRecord({"camera": camera_of(context)}))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Fold what came, take a turn, send its frame."""
        here, memory, round = site(context), _recall(context), _round(message)
        fold(here, memory, read_updates(message.content))
        turn = take_turn(here, camera_of(context), round, memory)
        _remember(context, memory)
        metrics = MetricRecord({"num-examples": turn.num_examples, "train-loss": turn.train_loss})
        return _reply(message, metrics, frame_record(turn.frame))

    @app.evaluate()
    def measure(message: Message, context: Context) -> Message:
        """Fold what came; where asked, measure the base as it comes (round 0) or the current model."""
        here, memory, camera = site(context), _recall(context), camera_of(context)
        in_step = _catches_up(here, memory, message)
        asked = message.content.config_records["config"]
        examples = len(here.fleet.cameras[camera].evaluation)
        metrics = MetricRecord({"num-examples": examples, "folded-round": memory.folded_round})
        if not in_step:
            return _reply(message, metrics)
        if asked.get("baseline"):
            source, zero_byte = baseline(here, camera)
            metrics.update(_scores("source", source) | _scores("zero-byte", zero_byte))
        elif asked.get("measure"):
            metrics.update(_scores("adapted", evaluate(here, camera, memory)))
        _remember(context, memory)
        statistics = _record(memory.statistics) if asked.get("statistics") else None
        return _reply(message, metrics, statistics)

    return app


def _catches_up(here: Site, memory: Memory, message: Message) -> bool:
    """Fold what came; False where updates before it are missing, and the server must be told so.

    Flower lets a turn that ended too late put back the state it began with, and what was folded meanwhile is gone.
    """
    try:
        fold(here, memory, read_updates(message.content))
    except RefusedFrameError as refusal:
        if refusal.reason != "other base":
            raise
        return False
    return True


def _answer_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A camera that fails forgets the turn and says why, in the same words on every engine."""
    kept = RecordDict(dict(context.state))
    try:
        return call_next(message, context)
    except Exception as error:
        context.state = kept
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if reason not in _shown:
            _shown.add(reason)
            logging.getLogger(__name__).exception("A camera raised:")
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def camera_of(context: Context) -> int:
    """The camera that a node plays: its partition id."""
    return int(context.node_config["partition-id"])


def _scores(name: str, scores: Scores) -> dict[str, float]:
    both = {f"{name}-accuracy": scores.weather, f"{name}-accuracy-clean": scores.clean}
    return {key: value for key, value in both.items() if not math.isnan(value)}


def _round(message: Message) -> int:
    return int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]


def _reply(message: Message, metrics: MetricRecord, arrays: ArrayRecord | None = None) -> Message:
    content = RecordDict({"metrics": metrics})
    if arrays is not None:
        content[ARRAYS_KEY] = arrays
    return Message(content, reply_to=message)


def _recall(context: Context) -> Memory:
    """The camera's memory, out of the state that Flower keeps for the node."""
    state = context.state
    memory = Memory(0, *(_tensors(state.array_records.get(kind)) for kind in _KEPT))
    if "memory" in state.config_records:
        memory.folded_round = int(state.config_records["memory"]["folded-round"])  # type: ignore[arg-type]
    return memory


def _remember(context: Context, memory: Memory) -> None:
    for kind in _KEPT:
        context.state[kind] = _record(getattr(memory, kind))
    context.state["memory"] = ConfigRecord({"folded-round": memory.folded_round})


def _record(tensors: dict[str, torch.Tensor]) -> ArrayRecord:
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in sorted(tensors.items())})


def _tensors(record: ArrayRecord | None) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.numpy()) for name, array in (record or {}).items()}


app = make_client_app()
