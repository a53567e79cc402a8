"""How much a method trains and sends on a network, built and weighed. Knows adapters and messages; not cameras."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter, trainable_parameters
from fed_lorac.adapters.targets import ALL_LAYERS, auto_rank_mode
from fed_lorac.errors import ConfigError
from fed_lorac.models import build
from fed_lorac.registry import ADAPTERS, CODECS
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.wire.billing import MessageSize, full_message, message_size, reply_records
from fed_lorac.wire.frame import by_name, encode, payload_bytes
from fed_lorac.wire.template import template_of

__all__ = ["PAPER_TABLE", "Sizes", "asked", "sizes"]

PAPER_TABLE = tuple(
    (model, "lora-c", rank, mode)
    for model in ("resnet20", "resnet18", "resnet34", "resnet50", "resnet101")
    for mode in ("r*k", "r")
    for rank in (1, 4, 16)
)
"""What `fed-lorac sizes` shows by default: LoRA-C's own backbones and ranks, and the CIFAR ResNet of the quick runs."""


Question = tuple[str, str, int, str]
"""Model, method, rank, rank mode."""


def asked(model: str | None, method: str, ranks: Sequence[int] | None, rank_mode: str) -> dict[str, list[Question]]:
    """The rows that are wanted, by network: where nothing is said, the paper's; a method without a rank has one.

    ConfigError where a rank, or how it counts, is asked for of a method that has none.
    """
    known, named = ADAPTERS.rules(method), {"rank": ranks, "rank_mode": rank_mode != "auto" and rank_mode}
    for setting, came in named.items():
        if came and setting not in known:
            told = ", ".join(map(str, came)) if setting == "rank" else came
            raise ConfigError(
                f"A method has the settings that it declares; {method} has no {setting}, which came as {told}. Leave "
                f"out --{setting.replace('_', '-')}, or choose another method, such as lora-c."
            )
    networks = dict.fromkeys(row[0] for row in PAPER_TABLE) if model is None else [model]
    wanted = (ranks or [1, 4, 16])[: None if "rank" in known else 1]
    rows = [(network, method, rank, rank_mode) for network in networks for rank in wanted]
    if model is None and ranks is None and (method, rank_mode) == ("lora-c", "auto"):
        rows = list(PAPER_TABLE)
    return {network: [row for row in rows if row[0] == network] for network in networks}


@dataclass(frozen=True)
class Sizes:
    """Parameters, and one uplink in bytes, of a method beside full fine-tuning of the same network.

    `dense_layers`: grouped convolutions that the method trains densely, as its own tensors would be no fewer.
    `full_frame_bytes` and `full_message_bytes` are full fine-tuning's under the same codec, `full_fp32_frame_bytes` is
    that in fp32. Frames cross a radio, so shares are of frames.
    """

    model: str
    method: str
    rank: int
    rank_mode: str
    layers: str
    dtype: str
    trainable_parameters: int
    dense_layers: int
    full_parameters: int
    frame_bytes: int
    message_bytes: int
    full_frame_bytes: int
    full_message_bytes: int
    full_fp32_frame_bytes: int

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
    layers: str = ALL_LAYERS,
) -> Sizes:
    """Attach `method` to `layers` of `model`, encode what a camera would send, and measure it; nothing is estimated.

    A frame's size follows from shapes and settings, never from values, so the network's weights are not drawn. Under a
    codec for probabilities a method trains no ends beside them, as in a run.

    Raises:
        ConfigError: there is no such model, method, rank mode or codec, or no such rank; or the method has no `layers`,
            or sends what the codec is not for.
        FactorError: a pattern of `layers` names none.
    """
    CODECS.load(dtype)
    codec = by_name(dtype)
    network = _without_weights(model, classes)
    mode = auto_rank_mode(network) if rank_mode == "auto" else rank_mode
    full, full_count = _full(model, classes, dtype), sum(p.numel() for p in network.parameters())
    known, given = ADAPTERS.rules(method), {"rank": rank, "alpha": 2.0 * rank, "rank_mode": mode, "layers": layers}
    if codec.of_probabilities:
        given |= {"train_first_conv": False, "train_classifier": False}
    if layers != ALL_LAYERS and "layers" not in known:
        raise ConfigError(f"Layers are chosen where a method has branches; {method} has none. Leave layers at all.")
    made: Adapter = ADAPTERS.make(method, **{key: value for key, value in given.items() if key in known})
    if codec.of_probabilities and not made.of_probabilities:
        raise ConfigError(
            f"{dtype} is for states that are probabilities and nothing else, and no run sends others under it; "
            f"{method} came. Use the method mask, or another codec."
        )
    made.prepare(network)
    adapter = made.fit_to(network)
    adapter.attach(network, torch_stream(0, "sizes"))
    state = {name: torch.zeros(tensor.shape) for name, tensor in adapter.read(network).items()}
    shared = [template_of({name: tensor.shape for name, tensor in state.items()})]
    frame = encode(state, dtype=dtype, base="", rng=stream(0, "weighed"), templates=shared)
    own = message_size(frame, payload_bytes(state, dtype), reply_records(), reply=True)
    return Sizes(
        model=model,
        method=method,
        rank=rank,
        rank_mode=mode,
        layers=layers,
        dtype=dtype,
        trainable_parameters=trainable_parameters(network),
        dense_layers=len(getattr(adapter, "dense", None) or ()),
        full_parameters=full_count,
        frame_bytes=own.frame_bytes,
        message_bytes=own.message_bytes,
        full_frame_bytes=full.frame_bytes,
        full_message_bytes=full.message_bytes,
        full_fp32_frame_bytes=_full(model, classes, "fp32").frame_bytes,
    )


@lru_cache
def _full(model: str, classes: int, dtype: str) -> MessageSize:
    """Full fine-tuning's uplink; kept, as every row of a network is held against the same."""
    parameters = {name: p.detach() for name, p in _without_weights(model, classes).named_parameters()}
    return full_message(parameters, dtype, reply_records(), reply=True)


def _without_weights(model: str, classes: int) -> nn.Module:
    """The network with zeros for weights, each one number seen as many: they take neither time nor memory."""
    try:
        with torch.device("meta"):
            network = build(model, num_classes=classes)
    except NotImplementedError:  # RegNet reckons its widths with tensors, which must have values
        network = build(model, num_classes=classes)
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, nn.Parameter(_zeros(parameter)))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, _zeros(buffer))
    return network


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype).expand(like.shape)
