"""A user's own network and ClientApp under Flower's stock `Strategy.start`: forty lines, and the mean is exact."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

from fed_lorac.adapters.deltas import fold
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.grid.in_process import in_process
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.strategy import Strategy
from fed_lorac.wire.billing import frame_record
from fed_lorac.wire.frame import encode
from fed_lorac.wire.updates import global_fingerprint, read_updates, unfolded
from strategies.factor_fedavg import FactorFedAvg
from strategies.merged import MergedFedAvg

Deltas = list[tuple[int, int, dict[str, Tensor]]]  # round, examples, what a camera's turn changed, dense


def small_model() -> nn.Module:
    torch.manual_seed(0)
    convs = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def images(camera: int) -> tuple[Tensor, Tensor]:
    """Bright, medium and dark noise, more of it for later cameras, each camera with an exposure of its own."""
    g = torch.Generator().manual_seed(camera)
    labels = torch.arange(12 + 6 * camera) % 3
    return torch.rand(len(labels), 1, 8, 8, generator=g) * 0.3 + labels.view(-1, 1, 1, 1) + 0.1 * camera, labels


ADAPTER = LoraC(rank=1, alpha=2.0)
BASE = fingerprint(named_tensors(small_model()))


def users_app(turns: Deltas) -> ClientApp:
    app = ClientApp()

    def current(message: Message, context: Context) -> tuple[nn.Module, int]:
        model, folded, state = small_model(), 0, context.state
        if "model" in state:
            model.load_state_dict(state.array_records["model"].to_torch_state_dict())
            folded = int(state.config_records["memory"]["folded-round"])  # type: ignore[arg-type]
        for round, change in unfolded(read_updates(message.content), BASE, folded):
            fold(model, change)
            folded = round
        state["model"], state["memory"] = ArrayRecord(model.state_dict()), ConfigRecord({"folded-round": folded})
        return model, folded

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model, folded = current(message, context)
        before = {name: t.clone() for name, t in named_tensors(model).items()}
        x, y = images(int(context.node_config["partition-id"]))
        ADAPTER.attach(model, torch.Generator().manual_seed(folded))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2)
        for _ in range(8):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        after = named_tensors(ADAPTER.merge(model))
        turns.append((folded, len(x), {name: after[name] - before[name] for name in before}))
        frame = encode(ADAPTER.read(model), dtype="fp32", base=global_fingerprint(BASE, folded))
        metrics = MetricRecord({"num-examples": len(x), "train-loss": loss.item()})
        return Message(RecordDict({"arrays": frame_record(frame), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        model, folded = current(message, context)
        x, y = images(int(context.node_config["partition-id"]))
        metrics = {"num-examples": len(x), "loss": F.cross_entropy(model(x), y).item(), "folded-round": folded}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    return app


def exact_model(turns: Deltas) -> dict[str, np.ndarray]:
    """The base and every round's mean of what the cameras' turns changed, in float64."""
    model = {name: t.numpy().astype(np.float64) for name, t in named_tensors(small_model()).items()}
    for round in sorted({folded for folded, _, _ in turns}):
        rows = [(n, change) for folded, n, change in turns if folded == round]
        for name in model:
            model[name] += sum(n * change[name].numpy().astype(np.float64) for n, change in rows) / sum(
                n for n, _ in rows
            )
    return model


@pytest.mark.parametrize("downlink", ["dense", "stack", "svd"])
def test_the_stock_start_averages_a_users_cameras_exactly(downlink: str):
    turns: Deltas = []
    grid = in_process(users_app(turns), 4)
    strategy = FrameStrategy.for_model(MergedFedAvg(downlink), small_model(), ADAPTER, quorum=3)
    with task_identity():
        result = strategy.start(grid, initial_arrays=ArrayRecord(small_model().state_dict()), num_rounds=3)
    found = {name: t.numpy() for name, t in result.arrays.to_torch_state_dict().items()}
    for name, owed in strategy.sums.get("residual", {}).items():  # svd's, still on the server
        found[name] = found[name] + owed.dense().numpy()
    expected = exact_model(turns)
    assert len(turns) == 12
    assert all(np.allclose(found[name], expected[name], atol=2e-6) for name in expected)
    losses = [float(m["loss"]) for _, m in sorted(result.evaluate_metrics_clientapp.items())]  # type: ignore[arg-type]
    assert losses[2] < losses[0]


def test_every_camera_holds_the_model_that_the_result_says():
    grid = in_process(users_app([]), 3)
    strategy = FrameStrategy.for_model(MergedFedAvg(), small_model(), ADAPTER)
    with task_identity():
        result = strategy.start(grid, initial_arrays=ArrayRecord(small_model().state_dict()), num_rounds=3)
    expected = result.arrays.to_torch_state_dict()
    for state in grid.states.values():
        held = state.array_records["model"].to_torch_state_dict()
        assert all(torch.allclose(held[name], expected[name], atol=1e-6) for name in expected)


@pytest.mark.parametrize("own", [MergedFedAvg(), FactorFedAvg()])
def test_it_starts_without_arrays_and_central_evaluation_sees_none(own: Strategy):
    seen: list[int] = []

    def evaluate_fn(round: int, arrays: ArrayRecord) -> None:
        seen.append(len(arrays))

    with task_identity():
        strategy = FrameStrategy.for_model(own, small_model(), ADAPTER)
        result = strategy.start(in_process(users_app([]), 2), ArrayRecord(), num_rounds=1, evaluate_fn=evaluate_fn)
    assert seen == [0, 0] and len(strategy.updates) == 1
    assert result.train_metrics_clientapp[1]["num-examples"] == 30


def fails_once(app: ClientApp, camera: int, kind: str) -> ClientApp:
    """The app, but one camera raises after its first message of that kind, so that nothing of it is kept or sent."""
    failed: list[bool] = []

    def mod(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        reply = call_next(message, context)
        if not failed and context.node_config["partition-id"] == camera and message.metadata.message_type == kind:
            failed.append(True)
            raise OSError("the radio broke down")
        return reply

    outer = ClientApp(mods=[mod])
    outer.train()(app)
    outer.evaluate()(app)
    return outer


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_camera_whose_radio_broke_down_catches_up(kind: str):
    turns: Deltas = []
    grid = in_process(fails_once(users_app(turns), 1, kind), 3)
    strategy = FrameStrategy.for_model(MergedFedAvg(), small_model(), ADAPTER)
    with task_identity():
        result = strategy.start(grid, ArrayRecord(small_model().state_dict()), num_rounds=3)
    expected = result.arrays.to_torch_state_dict()
    assert strategy.confirmed == {0: 3, 1: 3, 2: 3}
    for state in grid.states.values():
        held = state.array_records["model"].to_torch_state_dict()
        assert all(torch.allclose(held[name], expected[name], atol=1e-6) for name in expected)
