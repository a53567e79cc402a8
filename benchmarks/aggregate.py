"""How fast the server averages: merged averaging with each downlink, ResNet-18, a thousand cameras.

A round's `aggregate_train`, as the product does it: each reply's frame checked and decoded, deltas summed exactly, the
update compressed, encoded, decoded again, the error measured. Replies are made as they are asked for, from a few
distinct frames, so that a thousand of them need no memory; LoRA-C's rank in `--rank` and `--rank-mode`.

- cameras_per_s, by downlink.
- bandwidth_ratio, by downlink: seconds over those that the memory would need to read every frame once and write the
  update once, at the bandwidth of a copy of 1 GiB in this very run. 1 is the machine's limit; products `B A` and the
  svd are arithmetic, and what is above 1 is mostly theirs.
- fixed_s: the part that does not hang on the number of cameras, by a line through the times of the fleet and of half.
- peak_mib_above_start: by how much resident memory rose at its highest, the frames of the benchmark's own included.

    python benchmarks/aggregate.py --json [--cameras 1000] [--rank 2] [--rank-mode 'r*k'] [--threads 1]
"""

import argparse
import math
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from common import arguments, deliver, header, peak_mib, reset_peak, say, seconds_of
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import Tensor

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.grid.executor import SerialExecutor
from fed_lorac.grid.fleet_grid import FIRST_NODE, FleetGrid
from fed_lorac.models import build
from fed_lorac.runtime.flower_private import numbered, task_identity
from fed_lorac.seeds import torch_stream
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.rules import FleetRules
from fed_lorac.wire.billing import frame_record
from fed_lorac.wire.frame import encode
from fed_lorac.wire.updates import global_fingerprint
from strategies.merged import DOWNLINKS, MergedFedAvg

DISTINCT = 8


def main() -> None:
    args = parsed()
    torch.set_num_threads(args.threads)
    head = header()
    with task_identity():
        found = measured(args)
    deliver(found, head, as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--cameras", type=int, default=1000)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--rank-mode", default="r*k", choices=["r", "r*k"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--downlinks", nargs="+", default=list(DOWNLINKS), choices=DOWNLINKS)
    parser.add_argument("--mib", type=int, default=1024, help="size of the copy that measures the bandwidth")
    return parser.parse_args()


def measured(args: argparse.Namespace) -> dict[str, Any]:
    rows = {}
    for downlink in args.downlinks:
        rows[downlink] = round_of(downlink, args, bandwidth(args.mib))
        say(f"{downlink}: {rows[downlink]}")
    return {
        "cameras_per_s": {downlink: row["cameras_per_s"] for downlink, row in rows.items()},
        "bandwidth_ratio": {downlink: row["bandwidth_ratio"] for downlink, row in rows.items()},
        "downlinks": rows,
        "scenario": {
            "model": args.model,
            "cameras": args.cameras,
            "rank": args.rank,
            "rank_mode": args.rank_mode,
            "threads": args.threads,
        },
    }


def bandwidth(mib: int) -> float:
    """Bytes a second of a large copy, read and written: the median of five."""
    source = torch.ones(mib * 2**18)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / statistics.median([seconds_of(lambda: target.copy_(source)) for _ in range(5)])


def round_of(downlink: str, args: argparse.Namespace, bytes_per_s: float) -> dict[str, Any]:
    """One round's averaging, for the whole fleet and for half of it."""
    half, _, _ = aggregated(downlink, args, max(1, args.cameras // 2))
    before = peak_mib() if reset_peak() else math.nan
    seconds, frame_bytes, update_bytes = aggregated(downlink, args, args.cameras)
    grown = peak_mib() - before
    fixed = max(0.0, 2 * half - seconds)
    least = (args.cameras * frame_bytes + update_bytes) / bytes_per_s
    return {
        "cameras_per_s": round(args.cameras / seconds, 1),
        "bandwidth_ratio": round(seconds / least, 2),
        "seconds": round(seconds, 3),
        "fixed_s": round(fixed, 3),
        "peak_mib_above_start": None if math.isnan(grown) else round(grown),
        "frame_bytes": frame_bytes,
        "update_bytes": update_bytes,
        "copy_gib_per_s": round(bytes_per_s / 2**30, 2),
    }


def aggregated(downlink: str, args: argparse.Namespace, cameras: int) -> tuple[float, int, int]:
    """Seconds of the second round's `aggregate_train`, when svd has a residual to add, and the frames' bytes."""
    model = build(args.model, width=args.width)
    adapter = LoraC(rank=args.rank, alpha=2.0 * args.rank, rank_mode=args.rank_mode)
    roster = {FIRST_NODE + camera: camera for camera in range(cameras)}
    strategy = FrameStrategy.for_model(MergedFedAvg(downlink), model, adapter, rules=FleetRules(roster=roster))
    grid = FleetGrid(SerialExecutor(Nobody()), cameras)
    seconds = 0.0
    for number in (1, 2):
        asked = list(strategy.configure_train(number, ArrayRecord(), ConfigRecord(), grid))
        base = global_fingerprint(strategy.spec.base, strategy.folded_round)
        frames = [encode(drawn(strategy, k), dtype="fp32", base=base) for k in range(min(DISTINCT, cameras))]
        replies = answers(asked, frames)
        seconds = seconds_of(partial(strategy.aggregate_train, number, replies))
        assert all(reply.counted for reply in strategy.report.replies), strategy.report.replies[0]
    return seconds, len(frames[0]), len(strategy.updates[-1].frame)


def drawn(strategy: FrameStrategy, k: int) -> dict[str, Tensor]:
    """A state of the strategy's template: as a turn leaves it, but random."""
    generator = torch_stream(0, "aggregate", k)
    return {name: 0.01 * torch.randn(tuple(s), generator=generator) for name, s in strategy.spec.template.items()}


def answers(asked: list[Message], frames: list[bytes]) -> Iterator[Message]:
    """A reply to each message, made when it is asked for."""
    for at, message in enumerate(asked):
        metrics = MetricRecord({"num-examples": 100 + at % 7, "train-loss": 1.0})
        content = RecordDict({"arrays": frame_record(frames[at % len(frames)]), "metrics": metrics})
        yield Message(content, reply_to=numbered(message, f"message-{at}"))


class Nobody:
    """An app that is never asked: replies are made here."""

    def answer(self, requests: object, shared: object) -> list[Any]:
        """Nothing."""
        return []


if __name__ == "__main__":
    main()
