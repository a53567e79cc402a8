"""The experiment: what every process of a run shares, and what its cameras see. Knows data, fleet, base and adapters;
not messages or bytes, nor how it is made of a config (`build`)."""

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import ToDelta
from fed_lorac.config import Config, LimitedDevices
from fed_lorac.data.datasets import Dataset
from fed_lorac.experiment.base_model import BaseModel
from fed_lorac.fleet.camera_data import CameraData, Stream, camera_data
from fed_lorac.fleet.clock import images_seen
from fed_lorac.fleet.fleet import CLEAR, Fleet, Weather
from fed_lorac.fleet.labelled import Labelled
from fed_lorac.runtime.precision import Precision
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.loop import cosine
from fed_lorac.training.objectives.objective import Objective
from fed_lorac.training.recipe import Recipe
from fed_lorac.wire.codecs.codecs import FP32, Codec

__all__ = [
    "BatchNormPlan",
    "Experiment",
    "LocalPlan",
    "UplinkCodec",
    "compute_s",
    "drawn_from",
    "sees_frost",
    "to_delta",
]

KEPT_BYTES = 256 * 2**20
"""How much of what cameras saw a process keeps."""


@dataclass(frozen=True)
class BatchNormPlan:
    """Whose batch-norm statistics are: the camera's (local), everyone's and sent (shared), the base model's (frozen).

    `fixed`: local training leaves them as they are. `window`: how many of its latest images a camera's own statistics
    are taken from; 0: all.
    """

    mode: str = "local"
    fixed: bool = False
    window: int = 0

    @property
    def local(self) -> bool:
        """Whether each camera has statistics of its own."""
        return self.mode == "local"

    @property
    def trains(self) -> bool:
        """Whether local training normalises by each batch's statistics."""
        return self.mode != "frozen" and not self.fixed


@dataclass(frozen=True)
class UplinkCodec:
    """How a camera encodes what it sends."""

    codec: Codec = FP32
    topk_share: float = 0.05
    error_feedback: bool = False
    entropy: bool = False


@dataclass(frozen=True)
class LocalPlan:
    """What a camera does in a round, and what its messages mean.

    `recipe`: how steps are taken in the first round; a cosine takes its learning rate to 0 over `rounds`. `steps` a
    round, or where they are 0, `epochs`. `stream`: in which order images come. `block_size`: how many cameras train
    side by side; 0: as `training.blocks.rule` says.

    `objective`: what a step lowers. `labelled`: which images have labels, where that is a matter of a share.
    `trains`, `sends`: whether it trains, and sends what it has trained. `updates`: each of the server's is a delta of
    weights, an adapter state that both ends turn into one, or factors that live on in the adapter. `clustered`: a
    camera's personal parameters are its cluster's delta of the weights; otherwise its adapter starts from them.
    `fixed_basis`: an adapter draws the same in every round. `budget_bytes`: where the server is still to choose the
    layers, of what cameras say of each, what a frame's payload may take; 0: it is not. `finds_bases`: the
    server is still to find the bases of adapters, of cameras' gradients. `evaluate_cameras`, `evaluate_images`: how
    many cameras are measured, and on how many images each; 0: all.
    """

    seed: int
    rounds: int
    recipe: Recipe
    objective: Objective
    labelled: Labelled | None
    cosine: bool
    epochs: int
    steps: int
    image_size: int
    batch_norm: BatchNormPlan
    uplink: UplinkCodec
    block_size: int
    stream: Stream
    trains: bool
    sends: bool
    updates: Literal["delta", "state", "factors"]
    clustered: bool
    fixed_basis: bool
    budget_bytes: int = 0
    finds_bases: bool = False
    evaluate_cameras: int = 0
    evaluate_images: int = 0

    @property
    def settles(self) -> bool:
        """Whether the server is still to choose layers or to find bases, in a round of its own."""
        return bool(self.budget_bytes or self.finds_bases)

    def recipe_in(self, round: int) -> Recipe:
        """How steps are taken in a round, from 1."""
        return replace(self.recipe, lr=self.recipe.lr * cosine(round - 1, self.rounds)) if self.cosine else self.recipe

    def steps_on(self, images: int) -> int:
        """Optimizer steps of a camera with so many images, in one round."""
        return self.steps or self.epochs * -(-images // self.recipe.batch_size)


@dataclass(eq=False)
class _Seen:
    """What cameras saw lately, so that a round opens no file for what the one before has opened; the least recently
    asked for goes first, where it is more than KEPT_BYTES."""

    views: dict[tuple[int, str, int], CameraData] = field(default_factory=dict)
    bytes: int = 0
    alone: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, key: tuple[int, str, int], draw: Callable[[], CameraData]) -> CameraData:
        """What is kept under this key, else what `draw` gives, kept from now on."""
        view = self.views.get(key) or draw()  # by several threads at once
        with self.alone:
            if self.views.pop(key, None) is None:
                self.bytes += view.train.nbytes + view.test.nbytes
            self.views[key] = view
            while self.bytes > KEPT_BYTES:
                oldest = self.views.pop(next(iter(self.views)))
                self.bytes -= oldest.train.nbytes + oldest.test.nbytes
        return view


@dataclass(frozen=True, eq=False)
class Experiment:
    """One run's data, fleet, base model, adapters and plan, the same in every process that builds it from one config.

    `config` is for those who build a run of it and record it; cameras go by `plan`. `known`: the corruptions whose code
    is known to stay, so that what they make may be kept from round to round.
    """

    config: Config
    data: Dataset
    fleet: Fleet
    base: BaseModel
    adapters: tuple[Adapter, ...]
    plan: LocalPlan
    device: torch.device
    precision: Precision
    known: frozenset[str] = frozenset()
    _seen: _Seen = field(default_factory=_Seen, init=False, repr=False)
    _attached: dict[int, nn.Module] = field(default_factory=dict, init=False, repr=False)

    @property
    def adapter(self) -> Adapter:
        """What cameras train; where they differ in rank, that of the highest."""
        return max(self.adapters, key=lambda adapter: getattr(adapter, "rank", 0))

    @cached_property
    def measured(self) -> frozenset[int] | range:
        """The cameras that are measured, the same in every round: what sets two rounds, or two runs of one seed, apart
        is then no other draw."""
        count, of = self.plan.evaluate_cameras, len(self.fleet.cameras)
        if not 0 < count < of:
            return range(of)
        return frozenset(stream(self.plan.seed, "evaluate cameras").permutation(of)[:count].tolist())

    def place(self, camera: int) -> int:
        """The place of a camera's adapter in `adapters`, which are assigned round robin."""
        return camera % len(self.adapters)

    def attached(self, place: int | None = None) -> nn.Module:
        """The base with the adapter of a place attached (None: that of the highest rank), untrained, on the device. It
        is made once, as attaching looks at the whole network; nobody alters it."""
        place = self.adapters.index(self.adapter) if place is None else place
        if place not in self._attached:
            model = copy.deepcopy(self.base.model).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.adapters[place].attach(model, drawn_from(self, 0))
            self._attached[place] = model
        return self._attached[place]

    def images(self, camera: int, weather: Weather) -> CameraData:
        """A camera's images in this weather, which nobody alters. Severity 0 is clear air; DataError where there is
        none."""

        def draw() -> CameraData:
            one, keep = self.fleet.cameras[camera], not self.fleet.overlapping  # a million cameras fill a disk
            seen = camera_data(self.data, one, self.plan.seed, weather, on_disk=keep)
            return self._sampled(camera, replace(seen, labelled=self._labelled(camera, len(seen.train))))

        key = camera, "" if weather.severity == CLEAR else weather.corruption, weather.severity
        return self._seen.get(key, draw) if key[1] in {"", *self.known} else draw()

    def _sampled(self, camera: int, seen: CameraData) -> CameraData:
        """The same with those evaluation images alone that it is measured on: in every weather and round the same."""
        count, of = self.plan.evaluate_images, len(seen.test)
        if not 0 < count < of:
            return seen
        drawn = stream(self.plan.seed, "evaluate images", camera).permutation(of)[:count]
        drawn.sort()
        return replace(seen, test=seen.test[drawn], test_labels=seen.test_labels[drawn])

    def _labelled(self, camera: int, images: int) -> torch.Tensor | None:
        """Which of its labels to adapt on a camera has; None: all."""
        if not self.plan.objective.uses_labels:
            return torch.zeros(images, dtype=torch.bool)
        return None if self.plan.labelled is None else torch.from_numpy(self.plan.labelled.of(camera, images))

    def clear_images(self, camera: int) -> CameraData | None:
        """The same uncorrupted; None where the data set has only corrupted ones."""
        return self.images(camera, Weather("", CLEAR)) if len(self.data.images) else None


def compute_s(experiment: Experiment) -> Callable[[int], float]:
    """Camera -> simulated seconds that it trains in a round, where an image takes `image_time_s` at speed 1."""
    plan, limits = experiment.plan, experiment.config.fleet.table(LimitedDevices)

    def of_camera(number: int) -> float:
        camera = experiment.fleet.cameras[number]
        seen = images_seen(len(camera.train), batch_size=plan.recipe.batch_size, epochs=plan.epochs, steps=plan.steps)
        return seen * limits.image_time_s / camera.speed

    return of_camera


def drawn_from(experiment: Experiment, round: int) -> torch.Generator:
    """Where adapters of a round draw from: the same for every camera, and in every round where the basis stays.

    A mean of B_k A_k over one A to begin with is nearest to low rank, and svd down loses least.
    """
    return torch_stream(experiment.plan.seed, "adapter", 0 if experiment.plan.fixed_basis else round)


@lru_cache(maxsize=2)
def to_delta(experiment: Experiment, round: int) -> ToDelta:
    """What the states of a round say, as changes of the base's tensors."""
    return experiment.adapter.to_delta(experiment.base.model, drawn_from(experiment, round))


def sees_frost(experiment: Experiment) -> bool:
    """Whether any camera may see frost that is computed here; CIFAR-10-C's own is read from its files."""
    if experiment.config.data.name == "cifar10c":
        return False
    return "frost" in experiment.fleet.corruptions
