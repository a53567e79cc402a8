"""Laws of workers that are threads: what a run leaves behind is that of one process, to the byte."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import rows, tiny
from torch import nn

from fed_lorac.adapters.dataflow import calls_of, feeds
from fed_lorac.client.local_update import this_thread
from fed_lorac.models import build
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

UNTOUCHED = {"layers": "layer3.*", "train_first_conv": False, "training_statistics": "fixed"}
SETTINGS: dict[str, dict[str, object]] = {
    "statistics of each batch": {},
    "a prefix is kept": {"local__augment": "none", "local__epochs": 2, **UNTOUCHED},
    "clustered": {"strategy__name": "clustered", "codec__up": "int8"},
    "teachers": {
        "local__objective": "consistency", "strategy__name": "local-only", "run__precision": "bf16",
    },
    "ranks": {"adapter__rank": "1, 2", "strategy__name": "flora"},
    "bases of gradients": {
        "adapter__method": "lora-xs", "adapter__rank": 2, "bases": "gradient", "strategy__name": "fedavg",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(its, id=name, marks=() if name.startswith("a ") else pytest.mark.slow)
        for name, its in SETTINGS.items()
    ],
)
def test_threads_leave_the_bytes_of_one_process(settings: dict[str, object], tmp_path: Path) -> None:
    fleet = {"fleet__cameras": 6, "fleet__per_round": 6, "block_size": 1, "run__rounds": 3, **settings}
    run(tiny(**fleet), tmp_path / "one", Watch())
    run(tiny(run__workers=2, run__pool="threads", **fleet), tmp_path / "threads", Watch())
    for file in ("adapter.safetensors", "model.safetensors", "cameras.safetensors", "cameras.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "threads" / file).read_bytes(), file
    assert rows(tmp_path / "one/rounds.jsonl", "seconds") == rows(tmp_path / "threads/rounds.jsonl", "seconds")


@pytest.fixture
def busy() -> Iterator[list[BaseException]]:
    """Meanwhile another thread calls a network of its own, and traces it; what goes wrong there."""
    wrong: list[BaseException] = []
    stop, network, images = threading.Event(), build("resnet8", width=4).eval(), torch.rand(2, 3, 8, 8)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    expected = network(images)

    def call() -> None:
        try:
            while not stop.is_set():
                assert torch.equal(network(images), expected)
                assert len(feeds(network)) == norms
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    yield wrong
    stop.set()
    thread.join()


def test_a_network_is_traced_while_other_threads_call_and_trace_theirs(busy: list[BaseException]) -> None:
    network = build("resnet20", width=4)
    alone = [str(node) for node in calls_of(network)]
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) < len(alone)
    for _ in range(20):
        assert [str(node) for node in calls_of(network)] == alone
    assert not busy


def test_each_thread_has_networks_of_its_own() -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend([this_thread.bench, this_thread.bench, this_thread.measured]))
    thread.start()
    thread.join()
    assert (
        this_thread.bench is this_thread.bench
        and found[0] is found[1] is not this_thread.bench
        and found[2] is not this_thread.measured
    )
