"""A small network's states, the frames of its cameras, and rounds of a strategy, for the tests of the strategies."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MessageType, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from torch import Tensor

from fed_lorac.aggregation.aggregators import ClientDelta
from fed_lorac.grid.in_process import in_process
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.strategy import DownlinkCodec, FrameSpec, Shapes, Strategy
from fed_lorac.server.unheard import LosesMessages
from fed_lorac.wire.billing import frame_record
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import global_fingerprint

BASE = "5f1a"
SHAPES = {"conv.weight": (6, 4, 3, 3), "fc.bias": (5,), "fc.weight": (5, 6)}
VIEW = (18, 12)  # of conv.weight
TEMPLATE = {"conv.A": (2, 12), "conv.B": (18, 2), "fc.bias": (5,), "fc.weight": (5, 6)}
GRID = in_process(ClientApp(), 0)  # nobody lives there: rosters are given

State = dict[str, Tensor]
Dense = dict[str, np.ndarray]


def state(seed: int, rank: int = 2) -> State:
    """What a camera of this seed sends."""
    g = torch.Generator().manual_seed(seed)
    shapes = TEMPLATE | {"conv.A": (rank, VIEW[1]), "conv.B": (VIEW[0], rank)}
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def float64_mean(states: Iterable[tuple[State, float]], scale: float = 1.0) -> Dense:
    """The mean change by another route than the strategies': NumPy, float64, one filter row at a time."""
    mean = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for s, w in states:
        sent = {name: tensor.numpy().astype(np.float64) for name, tensor in s.items()}
        if "conv.A" in sent:
            for row in range(VIEW[0]):
                mean["conv.weight"][row // 3].reshape(3, -1)[row % 3] += (
                    w * scale * (sent["conv.B"][row] @ sent["conv.A"])
                )
        for name in sent.keys() & mean.keys():
            mean[name] += w * sent[name]
    return mean


def off(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest relative distance of any tensor."""
    assert found.keys() == expected.keys()
    return max(float(np.linalg.norm(found[n] - expected[n]) / np.linalg.norm(expected[n])) for n in expected)


def roster(cameras: int) -> dict[int, int]:
    """Node 1000 + k is camera k."""
    return {1000 + camera: camera for camera in range(cameras)}


def said_by(states: Iterable[tuple[State, float]], scale: float = 1.0) -> list[ClientDelta]:
    """What cameras 0, 1, 2, ... sent: states that are deltas, each with its weight."""
    return [ClientDelta(k, weight, one, one, SHAPES, scale) for k, (one, weight) in enumerate(states)]


def served(
    kind: type[Strategy],
    cameras: int = 3,
    *,
    shapes: Shapes = SHAPES,
    template: Shapes = TEMPLATE,
    scale: float = 1.0,
    template_of: Callable[[int], Shapes] | None = None,
    dtype: str = "fp32",
    seed: int = 0,
    quorum: int = 1,
    draw: Callable[[int], Sequence[int]] | None = None,
    weather_of: Callable[[int], int] | None = None,
    link: Callable[[int], str] = lambda camera: "",
    losses: LosesMessages | None = None,
    **own: Any,
) -> FrameStrategy:
    """A strategy of this kind with settings of its `own`, over frames of these cameras."""
    return FrameStrategy(
        kind(**own),
        FrameSpec(BASE, shapes, template, scale, template_of=template_of),
        codec=DownlinkCodec(dtype),
        seed=seed,
        rules=FleetRules(quorum=quorum, roster=roster(cameras), draw=draw, link=link, losses=losses),
        weather_of=weather_of,
    )


def reply(
    camera: int, content: RecordDict | None = None, *, error: Error | None = None, kind: str = MessageType.TRAIN
) -> Message:
    """A message from that camera's node."""
    return make_message(Metadata(1, "", 1000 + camera, 1, "", "", 1.0, 1.0, kind), content, error)


def answer(frame: bytes, **metrics: float) -> RecordDict:
    """A turn's answer: a frame and, unless told otherwise, 100 examples and a loss of 1."""
    numbers = {
        key.replace("_", "-"): value for key, value in ({"num_examples": 100, "train_loss": 1.0} | metrics).items()
    }
    return RecordDict({"arrays": frame_record(frame), "metrics": MetricRecord(numbers)})


def frame(seed: int, folded_round: int = 0, **changes: Tensor) -> bytes:
    """A camera's frame for the running base, with tensors changed."""
    return encode(state(seed) | changes, dtype="fp32", base=global_fingerprint(BASE, folded_round))


def train(strategy: FrameStrategy, number: int, seeds: Mapping[int, int], order: Iterable[int] | None = None) -> None:
    """Ask for a round; the cameras in `seeds` answer with that seed's state and 100 (k + 1) examples, in `order`."""
    list(strategy.configure_train(number, ArrayRecord(), ConfigRecord(), GRID))
    folded = strategy.folded_round
    answers = {k: reply(k, answer(frame(s, folded), num_examples=100 * (k + 1))) for k, s in seeds.items()}
    strategy.aggregate_train(number, [answers[camera] for camera in order or seeds])


def tell(strategy: FrameStrategy, number: int, deaf: Iterable[int] = ()) -> dict[int, list[str]]:
    """Send everyone the round's update; all but the deaf confirm. Returns the records each camera was sent."""
    sent = {
        strategy.roster[message.metadata.dst_node_id]: sorted(message.content.array_records)
        for message in strategy.configure_evaluate(number, ArrayRecord(), ConfigRecord(), GRID)
    }
    metrics = MetricRecord({"num-examples": 10, "folded-round": strategy.folded_round})
    answers = [
        reply(k, RecordDict({"metrics": metrics}), kind=MessageType.EVALUATE) for k in sent if k not in set(deaf)
    ]
    strategy.aggregate_evaluate(number, answers)
    return sent


def folded(strategy: FrameStrategy) -> Dense:
    """The sum of all updates, as any camera folds them."""
    total, before = {name: np.zeros(shape) for name, shape in SHAPES.items()}, 0
    for update in strategy.updates:
        change = decode(update.frame, base=global_fingerprint(BASE, before))
        for name, dense in float64_mean([(change, 1.0)]).items():
            total[name] += dense
        before = update.round
    return total
