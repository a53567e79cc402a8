"""What cameras do in a turn: train, side by side in a cohort, and encode what they send. Knows models and frames; not
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
from fed_lorac.client.global_model import RunningBase, begun_from, running_model
from fed_lorac.experiment.experiment import Site, drawn_from
from fed_lorac.fleet import camera_data as views
from fed_lorac.seeds import stream
from fed_lorac.training.accuracy import Statistics, batch_norms, reestimate_statistics, statistics_of
from fed_lorac.training.augment import Augment
from fed_lorac.training.blocks.rule import cohort_size
from fed_lorac.training.loop import Recipe, Task, cosine, train
from fed_lorac.wire.base_tags import own_fingerprint
from fed_lorac.wire.error_feedback import encode_with_feedback
from fed_lorac.wire.frame import encode

__all__ = ["Brought", "Turn", "cohort_size_of", "recipe_of", "take_turns", "uplink_template"]

_FIXED_BY = 125  # images at most, evenly picked, that fix a turn's statistics


@dataclass(frozen=True)
class Brought:
    """What a camera brings to its turn: statistics, what its codec left out before, and its own part of the network."""

    camera: int
    statistics: Statistics = field(default_factory=dict, repr=False)
    lost: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    own: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Turn:
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


def take_turns(site: Site, running: RunningBase, round: int, brought: Sequence[Brought]) -> list[Turn]:
    """Train every camera's adapter on its own images, side by side, and encode what each uploads.

    All of these cameras have adapters of one shape.
    """
    config = site.config
    sights = [seen(site, one.camera, round) for one in brought]
    [place] = {site.place(one.camera) for one in brought}
    models = _bench(site, running, round, place).models(brought)
    if config.batch_norm.mode == "local" and config.batch_norm.in_turn == "fixed":
        _fix_statistics(site, models, sights)
    before = [statistics_of(model) for model in models]
    tasks = [
        Task(
            view.train,
            view.train_labels,
            _steps(site, view),
            stream(config.run.seed, "camera", k.camera, "round", round),
        )
        for k, view in zip(brought, sights, strict=True)
    ]
    outcomes = train(models, tasks, recipe=recipe_of(site, round))
    states = [_state(site, site.adapters[place], model, was) for model, was in zip(models, before, strict=True)]
    sent = [_packed(site, running, round, *pair) for pair in zip(brought, states, strict=True)]
    return [
        Turn(frame, len(task.labels), outcome.mean_loss, _local_statistics(site, model), lost, own)
        for model, task, outcome, (frame, lost, own) in zip(models, tasks, outcomes, sent, strict=True)
    ]


def _packed(
    site: Site, running: RunningBase, round: int, one: Brought, state: Mapping[str, Tensor]
) -> tuple[bytes, Mapping[str, Tensor], bytes]:
    """The frame that goes up, what its codec leaves out, and what stays with the camera: all of it, or nothing."""
    codec, starting = site.config.codec, site.base.fingerprint
    if site.config.strategy.name == "local-only":
        return b"", {}, encode(state, dtype="fp32", base=own_fingerprint(starting))
    frame, lost = encode_with_feedback(
        state,
        one.lost if codec.error_feedback else None,
        dtype=codec.up,
        base=running.fingerprint(starting),
        rng=stream(site.config.run.seed, "codec", one.camera, round),
        topk_share=codec.topk_share,
    )
    return frame, lost, b""


def _local_statistics(site: Site, model: nn.Module) -> Statistics:
    return statistics_of(model) if site.config.batch_norm.mode == "local" else {}


def cohort_size_of(site: Site) -> int:
    """How many cameras train side by side: as set, or by `cohort.rule`; one under Flower's runtime."""
    config = site.config
    if config.run.engine == "flower":
        return 1
    if config.run.cohort_size:
        return config.run.cohort_size
    return cohort_size(
        _untrained(site, site.adapter),
        image_size=config.data.image_size,
        batch_size=config.local.batch_size,
        precision=site.precision,
        device=site.device.type,
    )


def uplink_template(site: Site, adapter: Adapter | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a camera's frame, read off a network that was attached and not trained; without
    `adapter` of the largest there is."""
    adapter = adapter or site.adapter
    model = _untrained(site, adapter)
    return {name: tuple(tensor.shape) for name, tensor in _state(site, adapter, model, statistics_of(model)).items()}


def _untrained(site: Site, adapter: Adapter) -> nn.Module:
    """A network with the adapter attached, to read shapes off."""
    model = copy.deepcopy(site.base.model)
    adapter.attach(model, drawn_from(site, 0))
    return model


class _Bench:
    """Networks that a round's turns start from: made once and filled anew for each cohort, as copies take longer."""

    def __init__(self, site: Site, running: RunningBase, round: int, adapter: Adapter) -> None:
        model = running_model(site, running, {})
        adapter.attach(model, drawn_from(site, round))
        if running.factors:
            adapter.load(model, {**adapter.read(model), **running.factors})
        _set_training_mode(site, model)
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
                self._adapter.load(model, begun_from(one.own, self._adapter.read(model)))
        return models


@lru_cache(maxsize=1)
def _bench(site: Site, running: RunningBase, round: int, place: int) -> _Bench:
    """The bench of the round at hand; cameras with adapters of one shape share it, as they share the running base."""
    return _Bench(site, running, round, site.adapters[place])


def _moving(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a turn changes: trained parameters and buffers."""
    yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    yield from model.named_buffers()


def _fix_statistics(site: Site, models: Sequence[nn.Module], sights: Sequence[views.View]) -> None:
    """Statistics that stay for a turn are those of this round's model: older ones ruin it within a few rounds."""
    for model, view in zip(models, sights, strict=True):
        images = recent(site, view)
        every = -(-len(images) // _FIXED_BY)
        reestimate_statistics(model, images[::every], site.precision, site.base.normalization)
        _set_training_mode(site, model)


def _steps(site: Site, view: views.View) -> int:
    local = site.config.local
    return local.steps or local.epochs * -(-len(view.train) // local.batch_size)


def _state(site: Site, adapter: Adapter, model: nn.Module, before: Statistics) -> dict[str, Tensor]:
    """The adapter's state and, where statistics are shared, their change since `before`."""
    state = adapter.read(model)
    if site.config.batch_norm.mode == "shared":
        state |= {name: after - before[name] for name, after in statistics_of(model).items()}
    return state


def _set_training_mode(site: Site, model: nn.Module) -> None:
    model.train()
    if site.config.batch_norm.mode == "frozen" or site.config.batch_norm.in_turn == "fixed":
        for _, norm in batch_norms(model):
            norm.eval()


def recipe_of(site: Site, round: int) -> Recipe:
    """How cameras take their steps in a round."""
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
        prox_mu=c.prox_mu,
        shuffled=site.config.fleet.stream == "iid",
        normalization=site.base.normalization,
    )
