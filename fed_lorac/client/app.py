"""The Flower ClientApp: one camera's messages, a block of one. Knows Flower's context; what is answered is in `nodes`.

Flower keeps a node's memory and nothing else from message to message, so here the running base is part of it.
"""

import logging
from collections.abc import Mapping, Sequence

import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from fed_lorac.client.global_model import GlobalModel, caught_up
from fed_lorac.client.handlers import Node, answers, keeping, raised, told_round
from fed_lorac.client.state import folded_round
from fed_lorac.config import Config
from fed_lorac.errors import FedLoracError, kind_of
from fed_lorac.experiment.experiment import Experiment, build_experiment
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.updates import read_base, read_updates

__all__ = ["app", "make_client_app"]

_shown: set[str] = set()  # what went wrong in this process, so that each failure has one traceback


def make_client_app(config: Config | None = None, mods: Sequence[Mod] = ()) -> ClientApp:
    """The ClientApp of a config; without one, of the run-config that comes with each message's context.

    `mods` are Flower's: each stands around every message, the first outermost.
    """
    app = ClientApp(mods=[_answer_errors, *mods])

    def experiment(context: Context) -> Experiment:
        return build_experiment(config or Config.from_flat(context.run_config))

    @app.query()
    def roll_call(message: Message, context: Context) -> Message:
        """Which camera this node is."""
        return answers(experiment(context), GlobalModel(), [_node(message, context)])[0][0]

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Fold what came, take a turn, send its frame."""
        here = experiment(context)
        return _answered(here, _told(here, message, context), message, context)

    @app.evaluate()
    def measure(message: Message, context: Context) -> Message:
        """Fold what came; where asked, measure."""
        here = experiment(context)
        try:
            running = _told(here, message, context)
        except RefusedFrameError as refusal:
            if refusal.reason != "other base":
                raise
            # Flower lets a turn that ended too late put back the state it began with: what was folded since is gone.
            return told_round(message, context.state)
        return _answered(here, running, message, context)

    return app


def camera_of(context: Context) -> int:
    """The camera that a node plays: its partition id."""
    return int(context.node_config["partition-id"])


def _node(message: Message, context: Context) -> Node:
    return Node(camera_of(context), message, context.state)


def _answered(experiment: Experiment, running: GlobalModel, message: Message, context: Context) -> Message:
    [(reply, own)] = answers(experiment, running, [_node(message, context)])
    state = keeping(context.state, message, running.round, own)
    state["tensors"], state["factors"] = _record(running.tensors), _record(running.factors)
    context.state = state
    return reply


def _recall(context: Context) -> GlobalModel:
    """The running base, out of the state that Flower keeps for the node."""
    arrays = context.state.array_records
    return GlobalModel(folded_round(context.state), _tensors(arrays.get("tensors")), _tensors(arrays.get("factors")))


def _told(experiment: Experiment, message: Message, context: Context) -> GlobalModel:
    """The running base once what a message brings is in it."""
    content = message.content
    return caught_up(experiment, _recall(context), read_base(content), read_updates(content))


def _record(tensors: Mapping[str, torch.Tensor]) -> ArrayRecord:
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in sorted(tensors.items())})


def _tensors(record: ArrayRecord | None) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.numpy()) for name, array in (record or {}).items()}


def _answer_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A camera that fails forgets the turn and says why, in the same words on every engine."""
    kept = RecordDict(dict(context.state))
    try:
        return call_next(message, context)
    except Exception as error:
        context.state = kept
        reply = raised(message, error)
        if (kind := kind_of(reply.error.reason)) not in _shown:
            _shown.add(kind)
            ours = isinstance(error, FedLoracError)  # which says all by itself
            logging.getLogger(__name__).error("A camera raised %s", reply.error.reason, exc_info=not ours)
        return reply


app = make_client_app()
