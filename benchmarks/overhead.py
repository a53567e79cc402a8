"""What FleetGrid itself costs a camera: cameras that do nothing, in this process. No training, no images.

- ms_a_camera: one message there and one reply back through the grid (Flower messages made, numbered, visited, answered,
  settled). The reply is a frame of LoRA-C r = 2 (R = r) on ResNet-20, made once. Plain Flower's Ray runtime takes 5 to
  7 ms.
- driver_ms_a_camera: of that, CPU time of this process. Where workers are elsewhere (`--pool ray`), the driver has
  nothing else to do, so it bounds how many cameras a second a cluster can serve.
- round_ms_a_camera: a whole round under `MergedFedAvg` with svd down: cameras asked, replies checked, decoded and
  averaged, the update sent to everyone, confirmations taken. What all cameras share (the averaging's svd) is in it.
  driver_round_ms_a_camera: of that, CPU time of this process.

    python benchmarks/overhead.py --json [--cameras 1000] [--block-size 8] [--repeats 5] [--pool ray --workers 2]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from common import arguments, deliver, header, say, seconds_of
from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.config import load_config
from fed_lorac.grid.executor import Executor, SerialExecutor
from fed_lorac.grid.fleet_grid import FIRST_NODE, FleetGrid
from fed_lorac.grid.threads import ThreadExecutor
from fed_lorac.models import build
from fed_lorac.models.fingerprints import fingerprint, named_tensors
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.seeds import torch_stream
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.rules import FleetRules
from fed_lorac.simulation.round import run_round
from fed_lorac.wire.billing import frame_record
from fed_lorac.wire.frame import encode
from fed_lorac.wire.updates import global_fingerprint
from strategies.merged import MergedFedAvg

MODEL, ADAPTER = build("resnet20"), LoraC(rank=2, alpha=4.0, rank_mode="r")
BASE = fingerprint(named_tensors(MODEL))


class Idle:
    """Cameras that answer at once: with the same frame when asked to train, with a word when told an update."""

    def __init__(self) -> None:
        twin = build("resnet20")
        ADAPTER.attach(twin, torch_stream(0, "overhead"))
        self._state = ADAPTER.read(twin)
        self._frames: dict[int, RecordDict] = {}

    def answer(self, requests: Sequence[ClientRequest], shared: Any) -> list[ClientReply]:
        """The same to everyone."""
        return [
            ClientReply(Message(self._content(request.message), reply_to=request.message), request.state)
            for request in requests
        ]

    def _content(self, message: Message) -> RecordDict:
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[call-overload]
        if message.metadata.message_type == MessageType.EVALUATE:
            return RecordDict({"metrics": MetricRecord({"num-examples": 1, "folded-round": number})})
        if number not in self._frames:
            frame = encode(self._state, dtype="fp32", base=global_fingerprint(BASE, number - 1))
            self._frames[number] = RecordDict({"arrays": frame_record(frame)})
        metrics = MetricRecord({"num-examples": 100, "train-loss": 1.0})
        return RecordDict({"arrays": self._frames[number]["arrays"], "metrics": metrics})


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--block-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pool", choices=["one", "threads", "ray"], default="one", help="who answers for the cameras")
    parser.add_argument("--workers", type=int, default=2, help="of a pool of several")
    args = parser.parse_args()
    head = header()
    with task_identity(), closing(executor_of(args)) as executor:
        found = measured(args, executor)
    deliver(found, head, as_json=args.json)


def executor_of(args: argparse.Namespace) -> Executor:
    if args.pool == "one":
        return SerialExecutor(Idle())
    if args.pool == "threads":
        return ThreadExecutor(Idle(), args.workers, 1)
    from fed_lorac.grid.ray.executor import RayExecutor  # noqa: PLC0415  (seconds to import)

    return RayExecutor(load_config(None, {"run.workers": args.workers}), Idle, examined=False)


def measured(args: argparse.Namespace, executor: Executor) -> dict[str, Any]:
    cameras = args.cameras
    grid = FleetGrid(executor, cameras, block_size=args.block_size)
    roster = {FIRST_NODE + camera: camera for camera in range(cameras)}
    strategy = FrameStrategy.for_model(MergedFedAvg(), MODEL, ADAPTER, rules=FleetRules(roster=roster))

    def one_trip() -> None:
        content = RecordDict({"config": ConfigRecord({"server-round": 1})})
        asked = [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(asked))
        assert len(replies) == cameras and all(reply.has_content() for reply in replies)

    def one_round() -> None:
        number = strategy.folded_round + 1
        run_round(grid, strategy, number, measure=False, last=False, timeout=600.0, watch=Watch())
        assert not strategy.report.skipped and all(reply.counted for reply in strategy.report.replies)

    one_trip()
    one_round()
    turns = [(*both_of(one_trip), *both_of(one_round)) for _ in range(args.repeats)]
    each = [1e3 * statistics.median(times) / cameras for times in zip(*turns, strict=True)]
    names = ("ms_a_camera", "driver_ms_a_camera", "round_ms_a_camera", "driver_round_ms_a_camera")
    found: dict[str, Any] = {name: round(ms, 4) for name, ms in zip(names, each, strict=True)}
    say(f"{cameras} idle cameras: {each[0]:.4f} ms a trip and camera, {each[2]:.4f} ms a round and camera")
    workers = {} if args.pool == "one" else {"workers": args.workers}
    scenario = {"cameras": cameras, "block_size": args.block_size, "repeats": args.repeats, "pool": args.pool}
    return {**found, "scenario": scenario | workers}


def both_of(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that one call takes, and CPU seconds of this process in it."""
    began = time.process_time()
    return seconds_of(work), time.process_time() - began


if __name__ == "__main__":
    main()
