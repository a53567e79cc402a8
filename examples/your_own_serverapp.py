"""Your own Flower ServerApp and ClientApp, with frames on the wire and a strategy of ours: no config, no fleet of ours.

    python examples/your_own_serverapp.py

A camera keeps the network that it has, folds the updates that a message brings, and answers with one frame.
"""

import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from torch import Tensor, nn

import fed_lorac as fl
from fed_lorac.adapters.deltas import fold
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.grid.in_process import in_process
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.strategies import MergedFedAvg
from fed_lorac.wire.billing import frame_record
from fed_lorac.wire.updates import global_fingerprint, read_updates, unfolded

CAMERAS, ROUNDS = 3, 3
adapter = LoraC(rank=1, alpha=2.0)
client, server = ClientApp(), ServerApp()


def network() -> nn.Module:
    """The base that both ends have."""
    torch.manual_seed(0)
    convs = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


BASE = fingerprint(named_tensors(network()))


def images(context: Context) -> tuple[Tensor, Tensor]:
    """A camera's images: bright, medium and dark noise, at an exposure of its own."""
    camera = int(context.node_config["partition-id"])
    labels = torch.arange(24) % 3
    noise = torch.rand(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(camera))
    return 0.3 * noise + labels.view(-1, 1, 1, 1) + 0.1 * camera, labels


def up_to_date(message: Message, context: Context) -> tuple[nn.Module, int]:
    """The camera's network with the updates of the message folded in, and the last round among them."""
    model, round, state = network(), 0, context.state
    if "model" in state:
        model.load_state_dict(state.array_records["model"].to_torch_state_dict())
        round = int(str(state.config_records["memory"]["round"]))
    for this, update in unfolded(read_updates(message.content), BASE, round):
        fold(model, update)
        round = this
    state["model"], state["memory"] = ArrayRecord(model.state_dict()), ConfigRecord({"round": round})
    return model, round


@client.train()
def train(message: Message, context: Context) -> Message:
    """Train thin factors beside the network; answer with them as one frame."""
    model, round = up_to_date(message, context)
    x, y = images(context)
    adapter.attach(model, torch.Generator().manual_seed(round))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
    for _ in range(8):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    frame = fl.encode(adapter.read(model), dtype="fp32", base=global_fingerprint(BASE, round))
    metrics = MetricRecord({"num-examples": len(x)})
    return Message(RecordDict({"arrays": frame_record(frame), "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The loss of the network that the camera has by now."""
    model, round = up_to_date(message, context)
    x, y = images(context)
    loss = F.cross_entropy(model(x), y).item()
    metrics = MetricRecord({"num-examples": len(x), "loss": loss, "folded-round": round})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's own `start`, with our strategy."""
    strategy = fl.FrameStrategy.for_model(MergedFedAvg(downlink="svd"), network(), adapter, quorum=2)
    result = strategy.start(grid, initial_arrays=ArrayRecord(network().state_dict()), num_rounds=ROUNDS)
    for round, metrics in sorted(result.evaluate_metrics_clientapp.items()):
        print(f"round {round}: loss {metrics['loss']:.3f}")


if __name__ == "__main__":
    # One process, no Ray. Under `flwr run`, or `flwr.simulation.run_simulation`, the two apps run as they are.
    here = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    with task_identity():
        server(in_process(client, CAMERAS), here)
