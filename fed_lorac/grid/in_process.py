"""A fleet in this process for anyone's ClientApp, one node after another. Knows contexts; not what an app does."""

import copy
from collections.abc import Mapping, Sequence

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.clientapp import ClientApp

from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.grid.executor import SerialExecutor
from fed_lorac.grid.fleet_grid import FleetGrid
from fed_lorac.runtime.settings import Scalar

__all__ = ["ClientAppBlock", "in_process"]


def in_process(client_app: ClientApp, nodes: int, run_config: Mapping[str, Scalar] | None = None) -> FleetGrid:
    """A Flower Grid of `nodes` nodes that run `client_app` one after another, without server, sockets or Ray.

    Node ids are fixed, so every run is the same. A node that raises answers with an error and keeps the state it had
    before. Enter `fed_lorac.runtime.flower_private.task_identity()` around its use, outside a Flower process.
    """
    return FleetGrid(SerialExecutor(ClientAppBlock(client_app, nodes, run_config)), nodes)


class ClientAppBlock:
    """Anyone's ClientApp: each node's message by itself, with a context of its own."""

    def __init__(self, app: ClientApp, nodes: int, run_config: Mapping[str, Scalar] | None = None) -> None:
        self._app, self._nodes, self._config = app, nodes, dict(run_config or {})

    def answer(self, requests: Sequence[ClientRequest], shared: object) -> list[ClientReply]:
        """What the app makes of each message; nodes share no memory, so each has copies of its own."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: ClientRequest) -> ClientReply:
        context = Context(
            run_id=1,
            node_id=request.message.metadata.dst_node_id,
            node_config={"partition-id": request.camera, "num-partitions": self._nodes},
            state=_copied(request.state),
            run_config=dict(self._config),
        )
        message = copy.copy(request.message)
        message.content = _copied(request.message.content)
        return ClientReply(self._app(message, context), context.state)


def _copied(records: RecordDict) -> RecordDict:
    """Records of its own; an array's bytes, which nobody can alter, are shared."""
    return RecordDict(
        {key: ArrayRecord(dict(r)) if isinstance(r, ArrayRecord) else copy.deepcopy(r) for key, r in records.items()}
    )
