"""One camera's life: folding updates, a turn of training, being measured. Knows models and frames; not Flower."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from fed_lorac import views
from fed_lorac.adapters.changes import apply_changes, changed_names
from fed_lorac.evaluate import accuracy, batch_norms, reestimate_statistics
from fed_lorac.images import Augment
from fed_lorac.running import named_tensors, running_fingerprint
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.site import Site
from fed_lorac.training import Recipe, cosine, train
from fed_lorac.wire.codec import encode
from fed_lorac.wire.updates import unfolded

__all__ = ["Memory", "Scores", "Turn", "baseline", "evaluate", "fold", "statistics_of", "take_turn", "uplink_template"]

STATISTICS = ("running_mean", "running_var")


@dataclass
class Memory:
    """What a camera keeps from round to round; the starting base is pre-installed and not part of it.

    `tensors` are those of the running base that updates have changed; `factors` the carried ones (strategy "factors"
    only); `statistics` its own batch norm's.
    """

    folded_round: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """What a turn gives: the frame to send, and what stands beside it in the reply."""

    frame: bytes = field(repr=False)
    num_examples: int
    train_loss: float


@dataclass(frozen=True)
class Scores:
    """Accuracies, 0 to 1, on the camera's evaluation images in its weather and in clear air (nan: there are none)."""

    weather: float
    clean: float


def carries_factors(site: Site) -> bool:
    """Whether averaged factors live on unfolded: the naive strategy's way."""
    return site.config.strategy.name == "factors"


def fold(site: Site, memory: Memory, updates: Iterable[tuple[int, bytes]]) -> None:
    """`W <- W + D` for each (round, frame) after the last folded one, in order; FrameError or FactorError."""
    starting = named_tensors(site.base.model)
    for round, update in unfolded(updates, site.base.fingerprint, memory.folded_round):
        carried = {name for name in update if carries_factors(site) and name.endswith((".A", ".B"))}
        memory.factors |= {name: update[name] for name in carried}
        change = {name: tensor for name, tensor in update.items() if name not in carried}
        tensors = {n: memory.tensors[n] if n in memory.tensors else starting[n].clone() for n in changed_names(change)}
        apply_changes(tensors, change, 1.0)
        memory.tensors |= tensors
        memory.folded_round = round


def take_turn(site: Site, camera_id: int, round: int, memory: Memory) -> Turn:
    """Train one camera's adapter on its own images, from its running base, and encode what it uploads."""
    config, camera = site.config, site.fleet.cameras[camera_id]
    view = views.in_weather(site.data, camera, config.run.seed)
    model = _running_model(site, memory)
    before = statistics_of(model)
    _attach(site, model, memory, round)
    _set_training_mode(model, frozen_statistics=config.batch_norm.mode == "frozen")
    steps = config.local.steps or config.local.epochs * -(-len(view.train) // config.local.batch_size)
    rng = stream(config.run.seed, "camera", camera_id, "round", round)
    outcome = train(model, view.train, view.train_labels, recipe=_recipe(site, round), steps=steps, rng=rng)
    state = _uplink(site, model, before)
    if config.batch_norm.mode == "local":
        memory.statistics = statistics_of(model)
    base = running_fingerprint(site.base.fingerprint, memory.folded_round)
    return Turn(encode(state, dtype=config.codec.up, base=base), len(view.train), outcome.mean_loss)


def uplink_template(site: Site) -> dict[str, torch.Size]:
    """Name -> shape of every tensor in a camera's frame, read off a network that was attached and not trained."""
    model = copy.deepcopy(site.base.model)
    _attach(site, model, Memory(), 0)
    return {name: tensor.shape for name, tensor in _uplink(site, model, statistics_of(model)).items()}


def _uplink(site: Site, model: nn.Module, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """The adapter's state and, where statistics are shared, their change since `before`."""
    state = site.adapter.read(model)
    if site.config.batch_norm.mode == "shared":
        state |= {name: after - before[name] for name, after in statistics_of(model).items()}
    return state


def evaluate(site: Site, camera_id: int, memory: Memory) -> Scores:
    """Measure the camera's current model; under local batch norm it keeps the statistics of its own weather."""
    model = _running_model(site, memory)
    apply_changes(named_tensors(model), memory.factors, site.adapter.scale)
    local = site.config.batch_norm.mode == "local"
    clean = _score(site, model, views.clear(site.data, site.fleet.cameras[camera_id]), local)
    weather = _score(
        site, model, views.in_weather(site.data, site.fleet.cameras[camera_id], site.config.run.seed), local
    )
    if local:
        memory.statistics = statistics_of(model)
    return Scores(weather, clean)


def baseline(site: Site, camera_id: int) -> tuple[Scores, Scores]:
    """The starting base as it comes (source), and with statistics re-estimated by each camera (zero-byte)."""
    camera, model = site.fleet.cameras[camera_id], _running_model(site, Memory())
    seen = (views.in_weather(site.data, camera, site.config.run.seed), views.clear(site.data, camera))
    source = [_score(site, model, view, False) for view in seen]
    zero_byte = [_score(site, model, view, True) for view in seen]
    return Scores(*source), Scores(*zero_byte)


def _score(site: Site, model: nn.Module, view: views.View | None, reestimated: bool) -> float:
    if view is None:
        return float("nan")
    if reestimated:
        reestimate_statistics(model, view.train, site.precision)
    return accuracy(model, view.test, view.test_labels, site.precision)


def _running_model(site: Site, memory: Memory) -> nn.Module:
    model = copy.deepcopy(site.base.model)
    model.load_state_dict({**memory.tensors, **memory.statistics}, strict=False)
    return model.to(site.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _attach(site: Site, model: nn.Module, memory: Memory, round: int) -> None:
    # Every camera draws the same A: a mean of B_k A_k is then nearest to low rank, and svd down loses least.
    carried = carries_factors(site)
    site.adapter.attach(model, torch_stream(site.config.run.seed, "adapter", 0 if carried else round))
    if memory.factors:
        site.adapter.load(model, {**site.adapter.read(model), **memory.factors})


def _set_training_mode(model: nn.Module, *, frozen_statistics: bool) -> None:
    model.train()
    if frozen_statistics:
        for _, norm in batch_norms(model):
            norm.eval()


def _recipe(site: Site, round: int) -> Recipe:
    c = site.config.local
    factor = cosine(round - 1, site.config.run.rounds) if c.schedule == "cosine" else 1.0
    return Recipe(
        lr=c.lr * factor,
        momentum=c.momentum,
        weight_decay=c.weight_decay,
        clip_norm=c.clip_norm or float("inf"),
        batch_size=c.batch_size,
        augment=cast(Augment, c.augment),
        precision=site.precision,
    )


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    """Every batch norm's running mean and variance by name, as copies on the CPU."""
    found = {}
    for name, norm in batch_norms(model):
        for statistic in STATISTICS:
            value = cast(Tensor | None, getattr(norm, statistic))
            if value is not None:
                found[f"{name}.{statistic}"] = value.detach().to("cpu", copy=True)
    return found
