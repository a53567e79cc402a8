"""What one camera sends and is sent in a round, for every adapter under every strategy that accepts it.

Each figure is of a real run, read off its ledger: payload, frame and Flower message (down: the instruction too) of the
last round, fp32 both ways; then LoRA-C under `merged` by each codec. Bytes hang on shapes alone, so the runs are small:
drawn weights, one step, a few images of 8 x 8.

- rows: by network, adapter (and its form), strategy (and its way down): numbers, payload, frame and message bytes.
- codecs: by network, codec and rank mode.

    python benchmarks/bytes_by_method.py --json [--networks resnet20 resnet18] [--rank 2] [--cameras 4] [--jobs 2]
    python benchmarks/bytes_by_method.py --tables docs/*.md    # from the kept result, without a run
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from common import ROOT, arguments, deliver, header, say
from method_bytes.markdown import written
from method_bytes.pairs import Pair, pairs, ran

from fed_lorac import registry
from fed_lorac.registry import ADAPTERS

KEPT = ROOT / "benchmarks/results/bytes_by_method.json"
_FORMS = ("r", "r*k")
Work = Callable[[], dict[str, Any]]


def main() -> None:
    args = parsed()
    if args.tables:
        rewrite(args.tables)
        return
    head = header()
    deliver(measured(args), head, as_json=args.json)


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet18"])
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--rank", type=int, default=2)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--adapters", nargs="+", default=list(ADAPTERS.names), choices=ADAPTERS.names)
    codecs = [name for name in registry.CODECS.names if not registry.CODECS.load(name).of_probabilities]
    parser.add_argument("--codecs", nargs="*", default=codecs, choices=codecs)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each in a process of its own")
    parser.add_argument("--tables", nargs="+", type=Path, metavar="FILE", help="write the kept result's tables here")
    return parser.parse_args()


def rewrite(files: Iterable[Path]) -> None:
    """Put the tables of the kept result between the marks in these files."""
    found = json.loads(KEPT.read_text(encoding="utf-8"))
    for file in files:
        file.write_text(written(file.read_text(encoding="utf-8"), found), encoding="utf-8")


def measured(args: argparse.Namespace) -> dict[str, Any]:
    known = list(pairs())
    rows = [partial(row_of, network, p, args) for p in known if p.adapter in args.adapters for network in args.networks]
    lora_c = [p for p in known if (p.adapter, p.strategy, p.way) == ("lora-c", "merged", "svd") and p.form in _FORMS]
    codecs = [
        partial(codec_row_of, network, pair, codec, args)
        for codec in args.codecs
        for pair in lora_c
        for network in args.networks
    ]
    found = all_of([*rows, *codecs], args.jobs)
    return {
        "rows": found[: len(rows)],
        "codecs": found[len(rows) :],
        "scenario": {"rank": args.rank, "cameras": args.cameras, "width": args.width, "networks": args.networks},
    }


def all_of(work: Sequence[Work], jobs: int) -> list[dict[str, Any]]:
    """Each call's result, in order."""
    if jobs == 1:
        return [one() for one in work]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [future.result() for future in [pool.submit(one) for one in work]]


def row_of(network: str, pair: Pair, args: argparse.Namespace) -> dict[str, Any]:
    """One run of a pair on a network."""
    found = ran(pair.config(network, args.cameras, args.rank, **_width(args)))
    row = {
        "network": network,
        "adapter": pair.adapter,
        "form": pair.form,
        "strategy": pair.strategy,
        "way": pair.way,
        **{f"numbers_{side}": weight["payload_bytes"] // 4 for side, weight in found.items()},
        **found,
    }
    say(*(row[key] for key in ("network", "adapter", "form", "strategy", "way", "numbers_up", "numbers_down")))
    return row


def _width(args: argparse.Namespace) -> dict[str, int]:
    """The networks' width, where one is asked for: those of torchvision have no such setting."""
    return {"width": args.width} if args.width else {}


def codec_row_of(network: str, pair: Pair, codec: str, args: argparse.Namespace) -> dict[str, Any]:
    """One run of a pair on a network, by a codec both ways."""
    others = {**_width(args), "codec__up": codec, "codec__down": codec}
    found = ran(pair.config(network, args.cameras, args.rank, **others))
    say(network, pair.form, codec, found)
    return {"network": network, "codec": codec, "form": pair.form, **found}


if __name__ == "__main__":
    main()
