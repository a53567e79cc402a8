"""What cameras do in a turn: train, side by side in a block, and encode what they send. Knows models and frames; not
Flower, and not what a camera remembers: what is its own comes in and goes out."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.client.evaluation import recent, seen
from fed_lorac.client.global_model import GlobalModel, initial_state, network_of_global_model
from fed_lorac.config import Config, FleetEngine, LocalStatistics, Topk
from fed_lorac.experiment.experiment import Experiment, drawn_from
from fed_lorac.fleet import camera_data as views
from fed_lorac.seeds import stream
from fed_lorac.training.accuracy import Statistics, batch_norms, reestimate_statistics, statistics_of
from fed_lorac.training.augment import Augment
from fed_lorac.training.blocks.rule import block_size
from fed_lorac.training.loop import Recipe, Task, cosine, train
from fed_lorac.wire.base_tags import personal_fingerprint
from fed_lorac.wire.error_feedback import encode_with_feedback
from fed_lorac.wire.frame import encode

__all__ = ["Brought", "LocalUpdate", "block_size_of", "local_updates", "recipe_of", "uplink_template"]

_FIXED_BY = 125  # images at most, evenly picked, that fix a turn's statistics


@dataclass(frozen=True)
class Brought:
    """What a camera brings to its turn: statistics, what its codec left out before, and its own part of the network."""

    camera: int
    statistics: Statistics = field(default_factory=dict, repr=False)
    lost: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    own: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class LocalUpdate:
    """What a turn gives: the frame to send, what stands beside it in the reply, and what is the camera's own after.

    `lost` is what the codec left out of the frame, and of those before: empty without error feedback. Who sends nothing
    has an empty frame, and its adapter as its `own`.
    """

    frame: bytes = field(repr=False)
    num_examples: int
    train_loss: float
    statistics: Statistics = field(repr=False)
    lost: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    own: bytes = field(default=b"", repr=False)


def local_updates(
    experiment: Experiment, running: GlobalModel, round: int, brought: Sequence[Brought]
) -> list[LocalUpdate]:
    """Train every camera's adapter on its own images, side by side, and encode what each uploads.

    All of these cameras have adapters of one shape.
    """
    config = experiment.config
    sights = [seen(experiment, one.camera, round) for one in brought]
    [place] = {experiment.place(one.camera) for one in brought}
    models = _bench(experiment, running, round, place).models(brought)
    if _fixes_statistics(config):
        _fix_statistics(experiment, models, sights)
    before = [statistics_of(model) for model in models]
    tasks = [
        Task(
            view.train,
            view.train_labels,
            _steps(experiment, view),
            stream(config.run.seed, "camera", k.camera, "round", round),
        )
        for k, view in zip(brought, sights, strict=True)
    ]
    outcomes = train(models, tasks, recipe=recipe_of(experiment, round))
    states = [
        _state(experiment, experiment.adapters[place], model, was) for model, was in zip(models, before, strict=True)
    ]
    sent = [_packed(experiment, running, round, *pair) for pair in zip(brought, states, strict=True)]
    return [
        LocalUpdate(frame, len(task.labels), outcome.mean_loss, _local_statistics(experiment, model), lost, own)
        for model, task, outcome, (frame, lost, own) in zip(models, tasks, outcomes, sent, strict=True)
    ]


def _packed(
    experiment: Experiment, running: GlobalModel, round: int, one: Brought, state: Mapping[str, Tensor]
) -> tuple[bytes, Mapping[str, Tensor], bytes]:
    """The frame that goes up, what its codec leaves out, and what stays with the camera: all of it, or nothing."""
    codec, starting = experiment.config.codec, experiment.base.fingerprint
    if experiment.config.strategy.name == "local-only":
        return b"", {}, encode(state, dtype="fp32", base=personal_fingerprint(starting))
    frame, lost = encode_with_feedback(
        state,
        one.lost if codec.error_feedback else None,
        dtype=codec.up,
        base=running.fingerprint(starting),
        rng=stream(experiment.config.run.seed, "codec", one.camera, round),
        topk_share=codec.table(Topk).share,
    )
    return frame, lost, b""


def _local_statistics(experiment: Experiment, model: nn.Module) -> Statistics:
    return statistics_of(model) if experiment.config.batch_norm.mode == "local" else {}


def block_size_of(experiment: Experiment) -> int:
    """How many cameras train side by side: as set, or by `block.rule`; one under Flower's runtime."""
    config = experiment.config
    if config.run.engine == "flower":
        return 1
    if chosen := config.run.table(FleetEngine).block_size:
        return chosen
    return block_size(
        _untrained(experiment, experiment.adapter),
        image_size=config.data.image_size,
        batch_size=config.local.batch_size,
        precision=experiment.precision,
        device=experiment.device.type,
    )


def uplink_template(experiment: Experiment, adapter: Adapter | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a camera's frame, read off a network that was attached and not trained; without
    `adapter` of the largest there is."""
    adapter = adapter or experiment.adapter
    model = _untrained(experiment, adapter)
    return {
        name: tuple(tensor.shape) for name, tensor in _state(experiment, adapter, model, statistics_of(model)).items()
    }


def _untrained(experiment: Experiment, adapter: Adapter) -> nn.Module:
    """A network with the adapter attached, to read shapes off."""
    model = copy.deepcopy(experiment.base.model)
    adapter.attach(model, drawn_from(experiment, 0))
    return model


class _Bench:
    """Networks that a round's turns start from: made once and filled anew for each block, as copies take longer."""

    def __init__(self, experiment: Experiment, running: GlobalModel, round: int, adapter: Adapter) -> None:
        model = network_of_global_model(experiment, running, {})
        adapter.attach(model, drawn_from(experiment, round))
        if running.factors:
            adapter.load(model, {**adapter.read(model), **running.factors})
        _set_training_mode(experiment, model)
        self._models, self._adapter = [model], adapter
        self._fresh = {name: value.detach().clone() for name, value in _moving(model)}

    @torch.no_grad()
    def models(self, brought: Sequence[Brought]) -> list[nn.Module]:
        """One network for each of these cameras, in training mode, its adapter attached."""
        self._models += [copy.deepcopy(self._models[0]) for _ in brought[len(self._models) :]]
        models = self._models[: len(brought)]
        for model, one in zip(models, brought, strict=True):
            for name, value in _moving(model):
                value.copy_(one.statistics.get(name, self._fresh[name]))
            if one.own:
                self._adapter.load(model, initial_state(one.own, self._adapter.read(model)))
        return models


@lru_cache(maxsize=1)
def _bench(experiment: Experiment, running: GlobalModel, round: int, place: int) -> _Bench:
    """The bench of the round at hand; cameras with adapters of one shape share it, as they share the running base."""
    return _Bench(experiment, running, round, experiment.adapters[place])


def _moving(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a turn changes: trained parameters and buffers."""
    yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    yield from model.named_buffers()


def _fix_statistics(experiment: Experiment, models: Sequence[nn.Module], sights: Sequence[views.CameraData]) -> None:
    """Statistics that stay for a turn are those of this round's model: older ones ruin it within a few rounds."""
    for model, view in zip(models, sights, strict=True):
        images = recent(experiment, view)
        every = -(-len(images) // _FIXED_BY)
        reestimate_statistics(model, images[::every], experiment.precision, experiment.base.normalization)
        _set_training_mode(experiment, model)


def _steps(experiment: Experiment, view: views.CameraData) -> int:
    local = experiment.config.local
    return local.steps or local.epochs * -(-len(view.train) // local.batch_size)


def _state(experiment: Experiment, adapter: Adapter, model: nn.Module, before: Statistics) -> dict[str, Tensor]:
    """The adapter's state and, where statistics are shared, their change since `before`."""
    state = adapter.read(model)
    if experiment.config.batch_norm.mode == "shared":
        state |= {name: after - before[name] for name, after in statistics_of(model).items()}
    return state


def _set_training_mode(experiment: Experiment, model: nn.Module) -> None:
    model.train()
    if experiment.config.batch_norm.mode == "frozen" or _fixes_statistics(experiment.config):
        for _, norm in batch_norms(model):
            norm.eval()


def recipe_of(experiment: Experiment, round: int) -> Recipe:
    """How cameras take their steps in a round."""
    c = experiment.config.local
    factor = cosine(round - 1, experiment.config.run.rounds) if c.schedule == "cosine" else 1.0
    return Recipe(
        lr=c.lr * factor,
        momentum=c.momentum,
        weight_decay=c.weight_decay,
        clip_norm=c.clip_norm or float("inf"),
        batch_size=c.batch_size,
        augment=cast(Augment, c.augment),
        precision=experiment.precision,
        prox_mu=c.prox_mu,
        shuffled=experiment.config.fleet.stream == "iid",
        normalization=experiment.base.normalization,
    )


def _fixes_statistics(config: Config) -> bool:
    """Whether a camera's statistics are fixed before it trains."""
    return config.batch_norm.table(LocalStatistics).training_statistics == "fixed"
