"""What cameras do: a turn of training, side by side in a cohort, and being measured. Knows models and frames; not
Flower, and not what a camera remembers: statistics come in and go out."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from fed_lorac import views
from fed_lorac.adapters.changes import apply_changes
from fed_lorac.bases import RunningBase, carries_factors, running_model
from fed_lorac.cohort.rule import cohort_size
from fed_lorac.evaluate import accuracy, batch_norms, reestimate_statistics
from fed_lorac.images import Augment
from fed_lorac.running import named_tensors
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.site import Site
from fed_lorac.training import Recipe, Task, cosine, train
from fed_lorac.wire.feedback import encode_with_feedback

__all__ = [
    "Scores",
    "Statistics",
    "Turn",
    "baseline",
    "cohort_size_of",
    "evaluate",
    "recipe_of",
    "statistics_of",
    "take_turns",
    "uplink_template",
]

Statistics = Mapping[str, Tensor]
"""A camera's own batch norm: running means and variances by name; empty: the base's."""

_STATISTICS = ("running_mean", "running_var")
_FIXED_BY = 125  # images at most, evenly picked, that fix a turn's statistics


@dataclass(frozen=True)
class Turn:
    """What a turn gives: the frame to send, what stands beside it in the reply, and what is the camera's own after.

    `lost` is what the codec left out of the frame, and of those before: empty without error feedback.
    """

    frame: bytes = field(repr=False)
    num_examples: int
    train_loss: float
    statistics: Statistics = field(repr=False)
    lost: Mapping[str, Tensor] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Scores:
    """Accuracies, 0 to 1, on the camera's evaluation images in its weather and in clear air (nan: there are none)."""

    weather: float
    clean: float


def take_turns(
    site: Site,
    running: RunningBase,
    round: int,
    cameras: Sequence[int],
    statistics: Sequence[Statistics],
    lost: Sequence[Mapping[str, Tensor]],
) -> list[Turn]:
    """Train every camera's adapter on its own images, side by side, and encode what each uploads.

    `lost` is each camera's `Turn.lost` of its turn before, empty at first.
    """
    config = site.config
    seen = [_seen(site, camera, round) for camera in cameras]
    models = _bench(site, running, round).models(statistics)
    if config.batch_norm.mode == "local" and config.batch_norm.in_turn == "fixed":
        _fix_statistics(site, models, seen)
    before = [statistics_of(model) for model in models]
    tasks = [
        Task(view.train, view.train_labels, _steps(site, view), stream(config.run.seed, "camera", k, "round", round))
        for k, view in zip(cameras, seen, strict=True)
    ]
    outcomes = train(models, tasks, recipe=recipe_of(site, round))
    base = running.fingerprint(site.base.fingerprint)
    frames = [
        encode_with_feedback(
            _uplink(site, model, was),
            had if config.codec.error_feedback else None,
            dtype=config.codec.up,
            base=base,
            rng=stream(config.run.seed, "codec", k, round),
            topk_share=config.codec.topk_share,
        )
        for k, model, was, had in zip(cameras, models, before, lost, strict=True)
    ]
    return [
        Turn(
            frame,
            len(task.labels),
            outcome.mean_loss,
            statistics_of(model) if config.batch_norm.mode == "local" else {},
            losing,
        )
        for model, task, outcome, (frame, losing) in zip(models, tasks, outcomes, frames, strict=True)
    ]


def cohort_size_of(site: Site) -> int:
    """How many cameras train side by side: as set, or by `cohort.rule`; one under Flower's runtime."""
    config = site.config
    if config.run.engine == "flower":
        return 1
    if config.run.cohort_size:
        return config.run.cohort_size
    return cohort_size(
        _untrained(site),
        image_size=config.data.image_size,
        batch_size=config.local.batch_size,
        precision=site.precision,
        device=site.device.type,
    )


def uplink_template(site: Site) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor in a camera's frame, read off a network that was attached and not trained."""
    model = _untrained(site)
    return {name: tuple(tensor.shape) for name, tensor in _uplink(site, model, statistics_of(model)).items()}


def _untrained(site: Site) -> nn.Module:
    """A network with the adapter attached, to read shapes off."""
    model = copy.deepcopy(site.base.model)
    _attach(site, model, RunningBase(), 0)
    return model


def evaluate(
    site: Site, running: RunningBase, round: int, camera_id: int, statistics: Statistics
) -> tuple[Scores, Statistics]:
    """Measure the camera's current model in the round's weather, and under local batch norm with that weather's
    statistics, which are returned."""
    model = running_model(site, running, statistics)
    apply_changes(named_tensors(model), running.factors, site.adapter.scale)
    local = site.config.batch_norm.mode == "local"
    clean = _score(site, model, _seen_clear(site, camera_id, round), local)
    weather = _score(site, model, _seen(site, camera_id, round), local)
    return Scores(weather, clean), statistics_of(model) if local else {}


def baseline(site: Site, round: int, camera_id: int) -> tuple[Scores, Scores]:
    """The starting base as it comes (source), and with statistics re-estimated by each camera (zero-byte), in the
    round's weather."""
    model = running_model(site, RunningBase(), {})
    seen = (_seen(site, camera_id, round), _seen_clear(site, camera_id, round))
    source = [_score(site, model, view, False) for view in seen]
    zero_byte = [_score(site, model, view, True) for view in seen]
    return Scores(*source), Scores(*zero_byte)


def _seen(site: Site, camera: int, round: int) -> views.View:
    """A camera's images in the round's weather."""
    weather = site.fleet.weather(camera, round)
    return _as_they_come(
        site, camera, round, views.in_weather(site.data, site.fleet.cameras[camera], site.config.run.seed, weather)
    )


def _seen_clear(site: Site, camera: int, round: int) -> views.View | None:
    """The same images in clear air; None where the data set has none."""
    view = views.clear(site.data, site.fleet.cameras[camera])
    return None if view is None else _as_they_come(site, camera, round, view)


def _as_they_come(site: Site, camera: int, round: int, view: views.View) -> views.View:
    """A view in its order in time, which is drawn only where it matters: batches are shuffled otherwise."""
    correlated = site.config.fleet.stream == "correlated"
    if not (correlated or site.config.batch_norm.window):
        return view
    return views.in_stream_order(view, stream(site.config.run.seed, "stream", camera, round), correlated=correlated)


def _recent(site: Site, view: views.View) -> Tensor:
    """The images that a camera's statistics are taken from: the latest of its window, or all."""
    return view.train[-site.config.batch_norm.window :]  # -0: all


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    """Every batch norm's running mean and variance by name, as copies on the CPU."""
    found = {}
    for name, norm in batch_norms(model):
        for statistic in _STATISTICS:
            value = cast(Tensor | None, getattr(norm, statistic))
            if value is not None:
                found[f"{name}.{statistic}"] = value.detach().to("cpu", copy=True)
    return found


class _Bench:
    """Networks that a round's turns start from: made once and filled anew for each cohort, as copies take longer."""

    def __init__(self, site: Site, running: RunningBase, round: int) -> None:
        model = running_model(site, running, {})
        _attach(site, model, running, round)
        _set_training_mode(site, model)
        self._models = [model]
        self._fresh = {name: value.detach().clone() for name, value in _moving(model)}

    @torch.no_grad()
    def models(self, statistics: Sequence[Statistics]) -> list[nn.Module]:
        """One network for each of these cameras' statistics, in training mode, its adapter attached."""
        self._models += [copy.deepcopy(self._models[0]) for _ in statistics[len(self._models) :]]
        models = self._models[: len(statistics)]
        for model, own in zip(models, statistics, strict=True):
            for name, value in _moving(model):
                value.copy_(own.get(name, self._fresh[name]))
        return models


@lru_cache(maxsize=1)
def _bench(site: Site, running: RunningBase, round: int) -> _Bench:
    """The bench of the round at hand; all cameras of a fleet share it, as they share the running base."""
    return _Bench(site, running, round)


def _moving(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a turn changes: trained parameters and buffers."""
    yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    yield from model.named_buffers()


def _fix_statistics(site: Site, models: Sequence[nn.Module], seen: Sequence[views.View]) -> None:
    """Statistics that stay for a turn are those of this round's model: older ones ruin it within a few rounds."""
    for model, view in zip(models, seen, strict=True):
        recent = _recent(site, view)
        every = -(-len(recent) // _FIXED_BY)
        reestimate_statistics(model, recent[::every], site.precision)
        _set_training_mode(site, model)


def _steps(site: Site, view: views.View) -> int:
    local = site.config.local
    return local.steps or local.epochs * -(-len(view.train) // local.batch_size)


def _uplink(site: Site, model: nn.Module, before: Statistics) -> dict[str, Tensor]:
    """The adapter's state and, where statistics are shared, their change since `before`."""
    state = site.adapter.read(model)
    if site.config.batch_norm.mode == "shared":
        state |= {name: after - before[name] for name, after in statistics_of(model).items()}
    return state


def _score(site: Site, model: nn.Module, view: views.View | None, reestimated: bool) -> float:
    if view is None:
        return float("nan")
    if reestimated:
        reestimate_statistics(model, _recent(site, view), site.precision)
    return accuracy(model, view.test, view.test_labels, site.precision)


def _attach(site: Site, model: nn.Module, running: RunningBase, round: int) -> None:
    # Every camera draws the same A: a mean of B_k A_k is then nearest to low rank, and svd down loses least.
    drawn = 0 if carries_factors(site) else round
    site.adapter.attach(model, torch_stream(site.config.run.seed, "adapter", drawn))
    if running.factors:
        site.adapter.load(model, {**site.adapter.read(model), **running.factors})


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
    )
