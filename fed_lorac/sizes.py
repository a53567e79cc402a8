"""How much a method trains and sends on a network, built and weighed. Knows adapters and messages; not cameras."""

from dataclasses import asdict, dataclass
from typing import Any

from fed_lorac.adapters.lora_c import trainable_parameters
from fed_lorac.adapters.methods import adapter_of
from fed_lorac.adapters.survey import auto_rank_mode
from fed_lorac.config import AdapterConfig
from fed_lorac.models import build
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.wire.codec import encode, payload_bytes
from fed_lorac.wire.meter import full_message, reply_records, weigh

__all__ = ["PAPER_TABLE", "Sizes", "sizes"]

PAPER_TABLE = tuple(
    (model, "lora-c", rank, mode)
    for model in ("resnet20", "resnet18", "resnet34", "resnet50", "resnet101")
    for mode in ("r*k", "r")
    for rank in (1, 4, 16)
)
"""What `fed-lorac sizes` shows by default: LoRA-C's own backbones and ranks, and the CIFAR ResNet of the quick runs."""


@dataclass(frozen=True)
class Sizes:
    """Parameters, and one uplink in bytes, of a method beside full fine-tuning of the same network."""

    model: str
    method: str
    rank: int
    rank_mode: str
    trainable_parameters: int
    full_parameters: int
    frame_bytes: int
    message_bytes: int
    full_frame_bytes: int
    full_message_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def sizes(
    model: str,
    method: str = "lora-c",
    rank: int = 4,
    rank_mode: str = "auto",
    *,
    classes: int = 10,
    dtype: str = "fp32",
) -> Sizes:
    """Attach `method` to `model`, encode what a camera would send, and weigh it; nothing is estimated."""
    network = build(model, num_classes=classes)
    mode = auto_rank_mode(network) if rank_mode == "auto" else rank_mode
    beside = reply_records()
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    full, full_count = full_message(parameters, dtype, beside, reply=True), sum(p.numel() for p in parameters.values())
    adapter = adapter_of(AdapterConfig(method=method, rank=rank, alpha=2.0 * rank, rank_mode=mode))
    adapter.attach(network, torch_stream(0, "sizes"))
    state = adapter.read(network)
    frame = encode(state, dtype=dtype, base="", rng=stream(0, "weighed"))
    own = weigh(frame, payload_bytes(state, dtype), beside, reply=True)
    return Sizes(
        model,
        method,
        rank,
        mode,
        trainable_parameters(network),
        full_count,
        own.frame_bytes,
        own.message_bytes,
        full.frame_bytes,
        full.message_bytes,
    )
