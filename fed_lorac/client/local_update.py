"""What cameras do in a round: local updates, for which they train side by side in a block and encode what they send,
and evaluation on what they see. Knows networks, weather and frames; not Flower's messages."""

import copy
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import nan
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import apply_delta, initial_state
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.observe import COLLAPSED, observe
from fed_lorac.client.state import (
    ClientState,
    GlobalModel,
    build_network,
    decode_personal,
    personal_delta,
    personal_parameters,
)
from fed_lorac.experiment.experiment import Experiment, drawn_from
from fed_lorac.fleet.camera_data import CameraData, in_stream_order
from fed_lorac.fleet.fleet import CLEAR
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.seeds import stream
from fed_lorac.training.accuracy import (
    Statistics,
    accuracy,
    batch_norms,
    reestimate_statistics,
    statistics_of,
)
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.objective import NO_LABEL
from fed_lorac.training.recipe import Task
from fed_lorac.wire.feedback import encode_with_feedback
from fed_lorac.wire.frame import encode
from fed_lorac.wire.updates import personal_fingerprint

__all__ = [
    "LocalUpdate",
    "Scores",
    "clear_images",
    "evaluate",
    "images_in_round",
    "in_time",
    "local_task",
    "local_updates",
    "ready_for_training",
    "score",
    "this_thread",
    "trained_state",
]

_FIXED_BY = 125  # images at most, evenly picked, that fix the statistics of a round's training


@dataclass(frozen=True)
class LocalUpdate:
    """What a camera's training in a round gives: the frame to send, its metrics, and the camera's state afterwards.

    A camera that sends nothing has an empty frame, and its adapter among its personal parameters. `observed`: what a
    simulation sees of its learning without labels, which is no part of the reply that is billed.
    """

    frame: bytes = field(repr=False)
    num_examples: int
    train_loss: float
    state: ClientState
    observed: Mapping[str, float] = field(default_factory=dict)


def local_updates(
    experiment: Experiment, global_model: GlobalModel, round: int, states: Mapping[int, ClientState]
) -> dict[int, LocalUpdate]:
    """Train every camera's adapter on its own images, side by side, and encode what each uploads.

    `states` holds the state of each of these cameras, whose adapters are of one shape.
    """
    plan = experiment.plan
    images = {camera: images_in_round(experiment, camera, round) for camera in states}
    [place] = {experiment.place(camera) for camera in states}
    bench = this_thread.bench(experiment, global_model, round, place)
    models = ready_for_training(experiment, bench.models(experiment, states.values()), images.values())
    before = [statistics_of(model) for model in models]
    tasks = [
        local_task(view, plan.steps_on(len(view.train)), stream(plan.seed, "camera", camera, "round", round))
        for camera, view in images.items()
    ]
    outcomes = train(models, tasks, recipe=plan.recipe_in(round), objective=plan.objective)
    updates = {}
    for camera, model, was, task, outcome in zip(states, models, before, tasks, outcomes, strict=True):
        guessed, truth = outcome.guessed, images[camera].train_labels
        observed = {} if guessed is None else observe(guessed, task.labels, truth)
        if observed.get(COLLAPSED):
            sent = states[camera].personal_frame if plan.sends and not plan.clustered else b""
            before_it = states[camera].statistics if plan.batch_norm.local else {}
            bench.begin(model, before_it, decode_personal(experiment, sent) if sent else {})
        state = states[camera].with_statistics(statistics_of(model) if plan.batch_norm.local else {})
        trained = trained_state(experiment, experiment.adapters[place], model, was)
        if (adapter := experiment.adapters[place]).personal:
            own = {key: trained.pop(key) for key in list(trained) if adapter.is_personal(key)}
            state = state.with_parts(_personal_frame(experiment, own))
        frame, state = _encode(experiment, global_model, round, camera, state, trained)
        updates[camera] = LocalUpdate(frame, len(task.labels), outcome.mean_loss, state, observed)
    return updates


def local_task(view: CameraData, steps: int, rng: np.random.Generator) -> Task:
    """A camera's task on these images, with the labels that it has."""
    labels = view.train_labels if view.labelled is None else view.known_labels(NO_LABEL)
    return Task(view.train, labels, steps, rng)


def _encode(
    experiment: Experiment,
    global_model: GlobalModel,
    round: int,
    camera: int,
    state: ClientState,
    trained: Mapping[str, Tensor],
) -> tuple[bytes, ClientState]:
    """The frame that a camera sends of what it has trained, and its state: with a new residual, or, where nothing is
    sent, with all of it as personal parameters."""
    plan, base = experiment.plan, experiment.base.fingerprint
    if not plan.sends:
        return b"", state.with_personal(_personal_frame(experiment, trained))
    uplink = plan.uplink
    how: dict[str, Any] = {
        "dtype": uplink.codec,
        "base": global_model.fingerprint(base),
        "rng": stream(plan.seed, "codec", camera, round),
        "topk_share": uplink.topk_share,
        "templates": frame_spec(experiment).templates,
        "entropy": uplink.entropy,
    }
    if not uplink.error_feedback:
        return encode(trained, **how), state.with_residual({})
    frame, residual = encode_with_feedback(trained, state.residual, **how)
    return frame, state.with_residual(residual)


def _personal_frame(experiment: Experiment, state: Mapping[str, Tensor]) -> bytes:
    return encode(state, dtype="fp32", base=personal_fingerprint(experiment.base.fingerprint))


class _Bench:
    """Networks that a round's local updates start from: made once, and filled anew for each block."""

    def __init__(self, experiment: Experiment, global_model: GlobalModel, round: int, place: int) -> None:
        adapter = experiment.adapters[place]
        model = copy.deepcopy(experiment.attached(place))
        adapter.restart(model, global_model.tensors, drawn_from(experiment, round))
        if global_model.factors:
            adapter.load(model, {**adapter.read(model), **global_model.factors})
        _set_training_mode(experiment, model)
        self._models, self._adapter = [model], adapter
        self._fresh = {name: value.detach().clone() for name, value in _moving(model)}

    @torch.no_grad()
    def models(self, experiment: Experiment, states: Collection[ClientState]) -> list[nn.Module]:
        """One network for each of these states, in training mode, its adapter attached."""
        self._models += [copy.deepcopy(self._models[0]) for _ in range(len(states) - len(self._models))]
        models = self._models[: len(states)]
        for model, state in zip(models, states, strict=True):
            self.begin(model, state.statistics, personal_parameters(experiment, state))
        return models

    @torch.no_grad()
    def begin(self, model: nn.Module, statistics: Statistics, personal: Mapping[str, Tensor]) -> None:
        """Give one of these networks a fresh adapter with personal parameters put in: what was trained is gone."""
        for name, value in _moving(model):
            value.copy_(statistics.get(name, self._fresh[name]))
        if personal:
            self._adapter.load(model, initial_state(personal, self._adapter.read(model)))


def _moving(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What training changes: trained parameters and buffers."""
    yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    yield from model.named_buffers()


def _set_training_mode(experiment: Experiment, model: nn.Module) -> None:
    """Training mode, but for batch norm that no batch is to move."""
    model.train()
    if not experiment.plan.batch_norm.trains:
        for _, norm in batch_norms(model):
            norm.eval()


def ready_for_training(
    experiment: Experiment, models: Sequence[nn.Module], images: Iterable[CameraData]
) -> Sequence[nn.Module]:
    """The models in training mode. Statistics that stay fixed in it are this round's model's own: older ones ruin it
    within a few rounds."""
    recipe, batch_norm = experiment.plan.recipe, experiment.plan.batch_norm
    for model, view in zip(models, images, strict=True):
        if batch_norm.local and batch_norm.fixed:
            latest = _images_for_statistics(experiment, view)
            every = -(-len(latest) // _FIXED_BY)
            reestimate_statistics(model, latest[::every], recipe.precision, recipe.normalization)
        _set_training_mode(experiment, model)
    return models


def trained_state(experiment: Experiment, adapter: Adapter, model: nn.Module, before: Statistics) -> dict[str, Tensor]:
    """The adapter's state and, where statistics are shared, their change since `before`."""
    state = adapter.read(model)
    if experiment.plan.batch_norm.mode == "shared":
        state |= {name: after - before[name] for name, after in statistics_of(model).items()}
    return state


@dataclass(frozen=True)
class Scores:
    """Accuracies, 0 to 1, on the camera's evaluation images in its weather and in clear air (nan: there are none)."""

    weather: float
    clean: float


def evaluate(
    experiment: Experiment, global_model: GlobalModel, round: int, camera: int, state: ClientState
) -> tuple[Scores, ClientState]:
    """Evaluate a camera's current model in the round's weather.

    Under local batch norm, its statistics are taken from that weather first; the state that is returned has them.
    """
    model, local = this_thread.measured(experiment, global_model), experiment.plan.batch_norm.local
    if personal := personal_delta(experiment, state):
        model = copy.deepcopy(model)
        apply_delta(named_tensors(model), personal, experiment.adapter.scale)
    clear = clear_images(experiment, camera, round)
    clean = nan if clear is None else score(experiment, model, clear, reestimated=local)
    own = clean
    if experiment.fleet.weather(camera, round).severity != CLEAR:
        own = score(experiment, model, images_in_round(experiment, camera, round), reestimated=local)
    return Scores(own, clean), state.with_statistics(statistics_of(model) if local else {})


def _network_of(experiment: Experiment, global_model: GlobalModel) -> nn.Module:
    model = build_network(experiment, global_model, {})
    if global_model.factors:
        apply_delta(named_tensors(model), global_model.factors, experiment.adapter.scale)
    return model


class ThisThread(threading.local):
    """Networks that one thread alone alters. `bench`: that of the round at hand, shared by cameras with adapters of one
    shape. `measured`: the network that cameras are measured with, one after another, who alter its batch norm's
    statistics alone; so it is built once a round."""

    def __init__(self) -> None:
        self.bench = lru_cache(maxsize=1)(_Bench)
        self.measured = lru_cache(maxsize=1)(_network_of)


this_thread = ThisThread()


def score(experiment: Experiment, model: nn.Module, images: CameraData, *, reestimated: bool) -> float:
    """A network's accuracy on a camera's evaluation images; `reestimated`: under statistics of those to adapt on."""
    recipe = experiment.plan.recipe
    if reestimated:
        reestimate_statistics(model, _images_for_statistics(experiment, images), recipe.precision, recipe.normalization)
    return accuracy(model, images.test, images.test_labels, recipe.precision, recipe.normalization)


def images_in_round(experiment: Experiment, camera: int, round: int) -> CameraData:
    """A camera's images in the round's weather."""
    images = experiment.images(camera, experiment.fleet.weather(camera, round))
    return in_time(experiment, camera, round, images)


def _images_for_statistics(experiment: Experiment, images: CameraData) -> Tensor:
    """The images that a camera's statistics are taken from: the latest of its window, or all."""
    return images.train[-experiment.plan.batch_norm.window :]  # -0: all


def clear_images(experiment: Experiment, camera: int, round: int) -> CameraData | None:
    """The same images in clear air; None where the data set has none."""
    images = experiment.clear_images(camera)
    return None if images is None else in_time(experiment, camera, round, images)


def in_time(experiment: Experiment, camera: int, round: int, images: CameraData) -> CameraData:
    """The images in their order in time, drawn only where it matters: batches are shuffled otherwise."""
    plan = experiment.plan
    if plan.stream == "iid" and not plan.batch_norm.window:
        return images
    return in_stream_order(images, stream(plan.seed, "stream", camera, round), plan.stream)
