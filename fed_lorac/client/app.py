"""The Flower ClientApp: one camera's messages, a block of one. Knows Flower's context; `handlers` make its replies.

Flower keeps a node's records and nothing else from message to message, so here the global model is part of them.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from fed_lorac.adapters.bases import FoundBases
from fed_lorac.adapters.settled import Settled
from fed_lorac.client.handlers import error_reply, handle, report_folded_round
from fed_lorac.client.request import ClientRequest
from fed_lorac.client.state import ClientState, GlobalModel, catch_up
from fed_lorac.config import Config
from fed_lorac.errors import FedLoracError, kind_of
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.runtime.allocator import keep_freed_memory
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.updates import read_updates, read_whole_model

__all__ = ["app", "make_client_app"]

_shown: set[str] = set()  # what went wrong in this process, so that each failure has one traceback


def make_client_app(config: Config | None = None, mods: Sequence[Mod] = ()) -> ClientApp:
    """The ClientApp of a config; without one, of the run-config that comes with each message's context.

    `mods` are Flower's: each stands around every message, the first outermost.
    """
    app = ClientApp(mods=[_answer_errors, *mods])

    def experiment(context: Context) -> Experiment:
        keep_freed_memory()
        return build_experiment(config or Config.from_flat(context.run_config))

    @app.query()
    def identify(message: Message, context: Context) -> Message:
        """Which camera this node is."""
        return handle(experiment(context), GlobalModel(), [_request(message, context)])[0].message

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Fold the updates that came, train, send a frame."""
        here = experiment(context)
        return _handle(here, _fold(here, message, context), message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Fold the updates that came; where asked, evaluate."""
        here = experiment(context)
        try:
            global_model = _fold(here, message, context)
        except RefusedFrameError as refusal:
            if refusal.reason != "other base":
                raise
            # Where a client ends too late, Flower puts back the state it began with: what was folded since is gone.
            return report_folded_round(_request(message, context))
        return _handle(here, global_model, message, context)

    return app


def camera_of(context: Context) -> int:
    """The camera that a node plays: its partition id."""
    return int(context.node_config["partition-id"])


def _request(message: Message, context: Context) -> ClientRequest:
    return ClientRequest(camera_of(context), message, context.state)


def _handle(experiment: Experiment, global_model: GlobalModel, message: Message, context: Context) -> Message:
    [reply] = handle(experiment, global_model, [_request(message, context)])
    records = reply.state
    records["tensors"], records["factors"] = _pack(global_model.tensors), _pack(global_model.factors)
    if (settled := global_model.settled).layers:
        records["layers"] = ConfigRecord({"chosen": list(settled.layers)})
    if settled.bases:
        records["bases"] = _pack(settled.bases.state())
    context.state = records
    return reply.message


def _fold(experiment: Experiment, message: Message, context: Context) -> GlobalModel:
    """The global model in the node's records, once the updates in a message are folded into it."""
    content, arrays, told = message.content, context.state.array_records, context.state.config_records
    folded_round = ClientState.read(context.state).folded_round
    layers = tuple(map(str, cast(list[str], told["layers"]["chosen"]))) if "layers" in told else ()
    settled = Settled(layers, FoundBases.told(_unpack(arrays.get("bases"))))
    kept = GlobalModel(folded_round, _unpack(arrays.get("tensors")), _unpack(arrays.get("factors")), settled)
    return catch_up(experiment, kept, read_whole_model(content), read_updates(content))


def _pack(tensors: Mapping[str, torch.Tensor]) -> ArrayRecord:
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in sorted(tensors.items())})


def _unpack(record: ArrayRecord | None) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.numpy()) for name, array in (record or {}).items()}


def _answer_errors(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A camera that fails keeps the state it had and says why, in the same words on every engine."""
    kept = RecordDict(dict(context.state))
    try:
        return call_next(message, context)
    except Exception as error:
        context.state = kept
        reply = error_reply(message, error)
        if (kind := kind_of(reply.error.reason)) not in _shown:
            _shown.add(kind)
            ours = isinstance(error, FedLoracError)  # which says all by itself
            logging.getLogger(__name__).error("A camera raised %s", reply.error.reason, exc_info=not ours)
        return reply


app = make_client_app()
