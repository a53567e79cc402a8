"""How long one inference takes on the device: the exported network against the plain one, and their operations.

Both are the same architecture with batch norm folded; the exported one has a trained LoRA-C adapter merged into it. So
whatever adaptation costs at inference shows as a ratio above 1. Each runtime loads both from the bytes that
`fed-lorac export` writes. `attached` is what merging saves: the adapter still on the network as branches, batch norm
folded in neither, over the plain network likewise. Arms take turns; a figure is the median of the ratios of neighbours.

    python benchmarks/export_latency.py [--json] [--network resnet20] [--batch 1] [--threads 1] [--repeats 60]
        [--calls 5]
"""

import argparse
import io
import statistics
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from common import alternating_s, arguments, deliver, header, median_ratio, say
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.export.deployed import Deployed
from fed_lorac.export.formats import FORMATS
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream

_SIDE, ADAPTER = 32, LoraC(rank=4, alpha=8.0)
_PACKAGES = ("fed-lorac", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
Call = Callable[[], object]


@torch.inference_mode(mode=False)  # what is made in it cannot be trained, and so carries no adapter
def adapted(network: str) -> nn.Module:
    """The network with an adapter attached whose branches do something."""
    model, draw = build(network), torch_stream(0, "bench")
    ADAPTER.attach(model, torch_stream(0, "lora_c"))
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(parameter, std=0.01, generator=draw)
    return model.eval()


def eager(deployed: Deployed, x: Tensor) -> Call:
    return partial(deployed, x)


def torchscript(deployed: Deployed, x: Tensor) -> Call:
    script = torch.jit.load(io.BytesIO(FORMATS["torchscript"].encode(deployed, _SIDE, {})))
    return partial(script, x)


def onnx_runtime(deployed: Deployed, x: Tensor) -> Call:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(onnx_bytes(deployed), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"images": np.asarray(x)})


RUNTIMES = {"torch": eager, "torchscript": torchscript, "onnxruntime": onnx_runtime}


def onnx_bytes(deployed: Deployed) -> bytes:
    return FORMATS["onnx"].encode(deployed, _SIDE, {})


def repeated(call: Call, times: int) -> Call:
    def work() -> None:
        for _ in range(times):
            call()

    return work


def compared(over: Call, under: Call, args: argparse.Namespace) -> tuple[float, float, float]:
    """The ratio, and both medians in milliseconds a call."""
    a, b = alternating_s(repeated(over, args.calls), repeated(under, args.calls), args.repeats)
    ours_ms, plain_ms = (1e3 * statistics.median(times) / args.calls for times in (a, b))
    return median_ratio(a, b), ours_ms, plain_ms


def operations(deployed: Deployed) -> dict[str, int]:
    """Nodes of the ONNX graph by kind, and FLOPs of one image as PyTorch counts them."""
    found = Counter(node.op_type for node in onnx.load(io.BytesIO(onnx_bytes(deployed))).graph.node)
    with FlopCounterMode(display=False) as counter:
        deployed(torch.zeros(1, 3, _SIDE, _SIDE))
    return {**dict(sorted(found.items())), "flops": counter.get_total_flops()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--calls", type=int, default=5, help="inferences that one timing spans")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    head = header(packages=_PACKAGES)
    with torch.inference_mode():
        result = measured(args)
    deliver(result, head, as_json=args.json)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    x = torch.randint(0, 256, (args.batch, 3, _SIDE, _SIDE), generator=torch_stream(0, "images")).float()
    branches = adapted(args.network)
    with torch.inference_mode(False):
        plain = Deployed.of(build(args.network).eval(), fold=True)
        ours = Deployed.of(ADAPTER.merge(branches), fold=True)
    found: dict[str, Any] = {"latency_ratio": {}, "latency_ms": {}}
    for name, load in RUNTIMES.items():
        with torch.inference_mode(False):
            pair = load(ours, x), load(plain, x)
        ratio, ours_ms, plain_ms = compared(*pair, args)
        found["latency_ratio"][name] = ratio
        found["latency_ms"][name] = {"exported": ours_ms, "plain": plain_ms}
        say(f"{name}: exported {ours_ms:.3f} ms, plain {plain_ms:.3f} ms, ratio {ratio:.3f}")
    unmerged = Deployed(branches, "kept").eval(), Deployed.of(build(args.network), fold=False)
    found["attached_ratio"], *_ = compared(partial(unmerged[0], x), partial(unmerged[1], x), args)
    with torch.inference_mode(False):
        found["operations"] = {"exported": operations(ours), "plain": operations(plain)}
    found["settings"] = {key: value for key, value in vars(args).items() if key != "json"}
    return found


if __name__ == "__main__":
    main()
