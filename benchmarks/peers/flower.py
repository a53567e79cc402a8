"""The scenario under Flower: its ServerApp and ClientApp, in its own simulation runtime, whose workers are Ray's. Knows
Flower's records; what a camera does is in `turn`."""

import time
from collections.abc import Iterable
from statistics import fmean

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

from peers.network import load, network, statistics, trained
from peers.settings import Found, Settings, environment, images_of, settings_of_this_run
from peers.turn import learning_rate, measured, train

client, server = ClientApp(), ServerApp()


def run() -> None:
    """The whole arm."""
    settings = settings_of_this_run()
    on_gpu = settings.device.startswith("cuda")
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=settings.cameras,
        backend_config={
            "init_args": {"num_cpus": settings.workers, **({"num_gpus": 1} if on_gpu else {})},
            "client_resources": {"num_cpus": 1, "num_gpus": 1 / settings.workers if on_gpu else 0.0},
        },
    )


def _prepared(message: Message, context: Context) -> tuple[nn.Module, int]:
    """The worker's model, with the global parameters and this camera's statistics in it, and which camera that is."""
    own = context.state.array_records.get("statistics", ArrayRecord())
    arrays = message.content.array_records["arrays"]
    model = load(network(), arrays.to_torch_state_dict(), own.to_torch_state_dict())
    return model, int(context.node_config["partition-id"])


@client.train()
def _train(message: Message, context: Context) -> Message:
    settings, (model, camera) = settings_of_this_run(), _prepared(message, context)
    number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
    images, generator = images_of(camera, "weather"), torch.Generator().manual_seed(camera + 1000 * number)
    train(model, images, settings, learning_rate(settings, number), generator)
    context.state["statistics"] = ArrayRecord(statistics(model))
    metrics = MetricRecord({"num-examples": len(images.train)})
    return Message(RecordDict({"arrays": ArrayRecord(trained(model)), "metrics": metrics}), reply_to=message)


@client.evaluate()
def _evaluate(message: Message, context: Context) -> Message:
    settings, (model, camera) = settings_of_this_run(), _prepared(message, context)
    baseline = bool(message.content.config_records["config"].get("baseline"))
    found = measured(model, camera, settings, baseline=baseline)
    context.state["statistics"] = ArrayRecord(statistics(model))
    metrics = MetricRecord({"num-examples": len(images_of(camera, "weather").test), **found})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


class TimedFedAvg(FedAvg):
    """FedAvg that evaluates after the last round alone, and notes how long everything took."""

    def __init__(self, settings: Settings) -> None:
        everyone = settings.cameras
        super().__init__(min_available_nodes=everyone, min_train_nodes=everyone, min_evaluate_nodes=everyone)
        self.settings, self._began = settings, 0.0
        self.train_seconds: list[float] = []
        self.evaluation_seconds = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As FedAvg does, with the clock running."""
        self._began = time.perf_counter()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """As FedAvg does, then stop the clock."""
        result = super().aggregate_train(server_round, _good(replies))
        self.train_seconds.append(time.perf_counter() - self._began)
        return result

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nobody before the last round."""
        self._began = time.perf_counter()
        due = server_round == self.settings.rounds
        return super().configure_evaluate(server_round, arrays, config, grid) if due else []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As FedAvg does, then stop the clock."""
        result = super().aggregate_evaluate(server_round, _good(replies))
        self.evaluation_seconds += time.perf_counter() - self._began
        return result


def _good(replies: Iterable[Message]) -> list[Message]:
    replies = list(replies)
    if failed := [reply.error.reason for reply in replies if not reply.has_content()]:
        raise RuntimeError(f"a benchmark's camera failed: {failed[0]}")
    return replies


@server.main()
def _main(grid: Grid, context: Context) -> None:
    """Measure the base, run the rounds, say what came of it."""
    settings = settings_of_this_run()
    strategy, arrays = TimedFedAvg(settings), ArrayRecord(trained(network()))
    base, base_seconds = _baseline(grid, settings, arrays)
    result = strategy.start(grid, initial_arrays=arrays, num_rounds=settings.rounds)
    last = result.evaluate_metrics_clientapp[settings.rounds]
    Found(
        train_seconds=strategy.train_seconds,
        evaluation_seconds=base_seconds + strategy.evaluation_seconds,
        trainable=sum(array.numpy().size for array in arrays.values()),
        source=base["source-weather"],
        zero_byte=base["accuracy-weather"],
        accuracy=float(last["accuracy-weather"]),  # type: ignore[arg-type]
        accuracy_clean=float(last["accuracy-clear"]),  # type: ignore[arg-type]
        environment=environment("flwr", "ray", "loralib"),
    ).write()


def _baseline(grid: Grid, settings: Settings, arrays: ArrayRecord) -> tuple[dict[str, float], float]:
    while len(nodes := list(grid.get_node_ids())) < settings.cameras:
        time.sleep(0.1)
    began = time.perf_counter()
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"baseline": True})})
    asked = [Message(content, dst_node_id=node, message_type=MessageType.EVALUATE) for node in nodes]
    metrics = [reply.content.metric_records["metrics"] for reply in _good(grid.send_and_receive(asked))]
    means = {key: fmean(float(m[key]) for m in metrics) for key in metrics[0]}  # type: ignore[arg-type]
    return means, time.perf_counter() - began
