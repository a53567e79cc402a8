"""The plain arm's ServerApp: FedAvg, and a clock around each round's training. Knows Flower; not networks."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from plain_flower.network import network, trained
from plain_flower.settings import Settings, settings_of_this_run

app = ServerApp()


class TimedFedAvg(FedAvg):
    """FedAvg that evaluates when it is due, and notes how long each round's training took."""

    def __init__(self, settings: Settings) -> None:
        everyone = settings.cameras
        super().__init__(min_available_nodes=everyone, min_train_nodes=everyone, min_evaluate_nodes=everyone)
        self.settings, self._began = settings, 0.0
        self.seconds: list[float] = []

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
        replies = list(replies)
        if failed := [reply.error.reason for reply in replies if not reply.has_content()]:
            raise RuntimeError(f"a benchmark's camera failed: {failed[0]}")
        result = super().aggregate_train(server_round, replies)
        self.seconds.append(time.perf_counter() - self._began)
        return result

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nobody, unless it is due."""
        due = server_round % self.settings.evaluate_every == 0 or server_round == self.settings.rounds
        return super().configure_evaluate(server_round, arrays, config, grid) if due else []


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Measure the base, run the rounds, leave a JSON file."""
    settings = settings_of_this_run()
    strategy, arrays = TimedFedAvg(settings), ArrayRecord(trained(network()))
    base = _baseline(grid, settings, arrays)
    result = strategy.start(grid, initial_arrays=arrays, num_rounds=settings.rounds)
    last = result.evaluate_metrics_clientapp[settings.rounds]
    found: dict[str, Any] = {
        "train_seconds": strategy.seconds,
        "trainable": sum(array.numpy().size for array in arrays.values()),
        "source": base["source-weather"],
        "zero_byte": base["accuracy-weather"],
        "accuracy": last["accuracy-weather"],
        "accuracy_clean": last["accuracy-clear"],
    }
    Path(os.environ["PLAIN_FLOWER_RESULT"]).write_text(json.dumps(found), encoding="utf-8")


def _baseline(grid: Grid, settings: Settings, arrays: ArrayRecord) -> dict[str, float]:
    while len(nodes := list(grid.get_node_ids())) < settings.cameras:
        time.sleep(0.1)
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"baseline": True})})
    asked = [Message(content, dst_node_id=node, message_type=MessageType.EVALUATE) for node in nodes]
    metrics = [reply.content.metric_records["metrics"] for reply in grid.send_and_receive(asked)]
    return {key: fmean(float(m[key]) for m in metrics) for key in metrics[0]}  # type: ignore[arg-type]
