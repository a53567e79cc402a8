"""Does a round's time stay linear in the number of cameras, and the server's memory level? 100, 1,000 and 10,000.

Tiny work: a network of 1,700 numbers, one training step on four scanned digits, LoRA-C r = 1, batch-norm statistics of
each camera's own. The server side is the product's: FleetGrid in this process, `MergedFedAvg` with svd down, the
collector, the ledger's rows. Each fleet has a process of its own; its first round warms up and gives every camera a
state, the second is measured.

- time_ratio: the most seconds a camera over the fewest, over the fleets; 1 is linear. CPU seconds of the process, which
  has one thread: the fleets cannot take turns, and the clock on the wall counts what else the machine does.
- memory_ratio: the largest fleet's peak memory, less what its cameras remember, over the smallest's. Peak: resident
  memory of the whole process at its highest in the second round (VmHWM, which Linux lets one reset). What cameras
  remember: every object that the grid's states lead to, each once.
- server_bytes_a_camera: by how much that peak rises a camera, from the smallest to the largest fleet. Small things only
  should be in it: a message, a verdict, a confirmation.

    python benchmarks/scale.py --json [--cameras 100 1000 10000]
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import arguments, deliver, header, peak_mib, reset_peak, say
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from torch import nn

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.client.state import ClientState
from fed_lorac.data.datasets import Dataset, load
from fed_lorac.fleet.fleet import Camera, Fleet
from fed_lorac.grid.executor import SerialExecutor
from fed_lorac.grid.fleet_grid import FIRST_NODE, FleetGrid
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.radio.cellular import LTE_M
from fed_lorac.records.ledger import Ledger
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.rules import FleetRules
from fed_lorac.simulation.round import run_round
from fed_lorac.simulation.rows import write_rows
from fed_lorac.training.accuracy import statistics_of
from fed_lorac.training.loop import train
from fed_lorac.training.recipe import Recipe, Task
from fed_lorac.wire.billing import FullMessages, MessageSize, Reference, frame_record
from fed_lorac.wire.frame import encode
from fed_lorac.wire.updates import global_fingerprint
from strategies.merged import MergedFedAvg

ADAPTER = LoraC(rank=1, alpha=2.0, rank_mode="r")
IMAGES, SIDE = 4, 8
BLOCK = 8
_ATOMS = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


def network() -> nn.Module:
    """Two convolutions with batch norm and a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        second = [nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
        return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(16, 10))


class Tiny:
    """Cameras of four digits each: a step of training on a network that the process keeps."""

    def __init__(self, data: Dataset) -> None:
        self._data, self._model, self._plain = data, network(), network()
        self.base = fingerprint(named_tensors(self._plain))
        ADAPTER.attach(self._model, torch_stream(0, "scale"))
        self._recipe = Recipe(lr=0.01, batch_size=IMAGES, augment="none")

    def answer(self, requests: Sequence[ClientRequest], shared: Any) -> list[ClientReply]:
        """Each camera's turn, or its word that it has folded the update."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: ClientRequest) -> ClientReply:
        state = ClientState.read(request.state)
        number = int(request.message.content.config_records["config"]["server-round"])  # type: ignore[call-overload]
        if request.message.metadata.message_type == MessageType.EVALUATE:
            content = RecordDict({"metrics": MetricRecord({"num-examples": 1, "folded-round": number})})
            return ClientReply(Message(content, reply_to=request.message), state.after(content, number).write())
        ADAPTER.detach(self._model)
        self._model.load_state_dict({**named_tensors(self._plain), **state.statistics}, strict=False)
        ADAPTER.attach(self._model, torch_stream(0, "scale", number))
        self._model.train()
        at = np.arange(IMAGES * request.camera, IMAGES * (request.camera + 1)) % len(self._data.images)
        images, labels = torch.from_numpy(self._data.clean(at)), torch.from_numpy(self._data.labels[at])
        [outcome] = train(
            [self._model], [Task(images, labels, 1, stream(0, "scale", request.camera))], recipe=self._recipe
        )
        frame = encode(ADAPTER.read(self._model), dtype="fp32", base=global_fingerprint(self.base, number - 1))
        metrics = MetricRecord({"num-examples": IMAGES, "train-loss": outcome.mean_loss})
        reply = Message(RecordDict({"arrays": frame_record(frame), "metrics": metrics}), reply_to=request.message)
        return ClientReply(reply, state.with_statistics(statistics_of(self._model)).write())


def main() -> None:
    args = parsed()
    if args.one:
        with task_identity():
            sys.stdout.write(json.dumps(fleet_of(args.one)) + "\n")
        return
    head, rows = header(), []
    load("digits", "", image_size=SIDE)  # so that every fleet finds them in the cache
    for cameras in sorted(args.cameras):
        command = [sys.executable, __file__, "--one", str(cameras)]
        rows.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
        say(rows[-1])
    deliver(compared(rows), head, as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--cameras", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # one fleet, in this process
    return parser.parse_args()


def fleet_of(cameras: int) -> dict[str, Any]:
    """Two rounds of so many cameras; the second is measured."""
    torch.set_num_threads(1)
    app = Tiny(load("digits", "", image_size=SIDE))
    grid = FleetGrid(SerialExecutor(app), cameras, block_size=BLOCK)
    roster = {FIRST_NODE + camera: camera for camera in range(cameras)}
    strategy = FrameStrategy.for_model(MergedFedAvg(), network(), ADAPTER, rules=FleetRules(roster=roster))
    nobody = np.zeros(0, dtype=np.int64)
    fleet = Fleet(
        tuple(Camera(i, "fog", 3, nobody, nobody, {}, "lte-m") for i in range(cameras)),
        cameras,
        0,
        links={"lte-m": LTE_M},
    )
    with tempfile.TemporaryDirectory() as folder, Ledger(folder) as ledger:
        one_round(grid, strategy, fleet, ledger, 1)
        gc.collect()
        peak_is_from_here = reset_peak()
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        one_round(grid, strategy, fleet, ledger, 2)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        peak = peak_mib()
    states = reached_bytes(grid.states) / 2**20
    return {
        "cameras": cameras,
        "ms_a_camera": round(1e3 * cpu_s / cameras, 4),
        "wall_ms_a_camera": round(1e3 * wall_s / cameras, 4),
        "peak_mib": round(peak, 1),
        "cameras_state_mib": round(states, 2),
        "server_mib": round(peak - states, 1),
        "state_bytes_a_camera": round(states * 2**20 / cameras),
        "peak_of_second_round_alone": peak_is_from_here,
    }


def one_round(grid: FleetGrid, strategy: FrameStrategy, fleet: Fleet, ledger: Ledger, number: int) -> None:
    """A round with its rows."""
    measured, seconds = run_round(grid, strategy, number, measure=False, last=False, timeout=3600.0, watch=Watch())
    one = FullMessages(*[MessageSize(1, 1, 1)] * 4)
    row = write_rows(ledger, strategy.report, fleet, Reference(one, one), measured, seconds)
    assert row["cameras_counted"] == len(fleet.cameras), row


def compared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    few, many = rows[0], rows[-1]
    times = [row["ms_a_camera"] for row in rows]
    grown = (many["server_mib"] - few["server_mib"]) * 2**20 / max(1, many["cameras"] - few["cameras"])
    return {
        "time_ratio": round(max(times) / min(times), 3),
        "memory_ratio": round(many["server_mib"] / few["server_mib"], 3),
        "server_bytes_a_camera": round(grown),
        "fleets": rows,
    }


def reached_bytes(root: object) -> int:
    """The size of everything that an object leads to, each thing once, code and types left out."""
    seen: set[int] = set()
    waiting, total = [root], 0
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, _ATOMS):
            continue
        seen.add(id(thing))
        total += sys.getsizeof(thing)
        waiting += gc.get_referents(thing)
    return total


if __name__ == "__main__":
    main()
