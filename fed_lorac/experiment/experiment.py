"""The experiment: what every process of a run shares, built from the config once; nobody below the builder reads a
whole config. Knows config, data, fleet and base; not messages or bytes."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, cast

import torch

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import ToDelta
from fed_lorac.config import (
    AdapterConfig,
    CifarData,
    Config,
    FleetEngine,
    FolderData,
    LocalStatistics,
    Topk,
)
from fed_lorac.config.compatibility import fixed_basis
from fed_lorac.data.datasets import Dataset, load
from fed_lorac.data.progress import at
from fed_lorac.data.store import cached_arrays
from fed_lorac.experiment.base_model import BaseModel, load_base_model
from fed_lorac.fleet.dealing import build_fleet
from fed_lorac.fleet.fleet import Fleet
from fed_lorac.registry import STRATEGIES
from fed_lorac.runtime.normalization import Normalization
from fed_lorac.runtime.precision import Precision, resolved_device, resolved_precision
from fed_lorac.runtime.settings import Scalar
from fed_lorac.seeds import torch_stream
from fed_lorac.training.batch_norm import check_cameras
from fed_lorac.training.batches import Augment
from fed_lorac.training.loop import Recipe, cosine
from fed_lorac.wire.codecs.codecs import FP32, Codec
from fed_lorac.wire.frame import by_name

__all__ = [
    "BatchNormPlan",
    "Experiment",
    "LocalPlan",
    "UplinkCodec",
    "build_experiment",
    "drawn_from",
    "local_plan",
    "open_data",
    "sees_frost",
    "to_delta",
]


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


@dataclass(frozen=True)
class LocalPlan:
    """What a camera does in a round, and what its messages mean.

    `recipe`: how steps are taken in the first round; a cosine takes its learning rate to 0 over `rounds`. `steps` a
    round, or where they are 0, `epochs`. `correlated`: images come class by class. `block_size`: how many cameras train
    side by side; 0: as `training.blocks.rule` says.

    `trains`, `sends`: whether it trains, and sends what it has trained. `updates`: each of the server's is a delta of
    weights, an adapter state that both ends turn into one, or factors that live on in the adapter. `clustered`: a
    camera's personal parameters are its cluster's delta of the weights; otherwise its adapter starts from them.
    `fixed_basis`: an adapter draws the same in every round.
    """

    seed: int
    rounds: int
    recipe: Recipe
    cosine: bool
    epochs: int
    steps: int
    image_size: int
    batch_norm: BatchNormPlan
    uplink: UplinkCodec
    block_size: int
    correlated: bool
    trains: bool
    sends: bool
    updates: Literal["delta", "state", "factors"]
    clustered: bool
    fixed_basis: bool

    def recipe_in(self, round: int) -> Recipe:
        """How steps are taken in a round, from 1."""
        return replace(self.recipe, lr=self.recipe.lr * cosine(round - 1, self.rounds)) if self.cosine else self.recipe

    def steps_on(self, images: int) -> int:
        """Optimizer steps of a camera with so many images, in one round."""
        return self.steps or self.epochs * -(-images // self.recipe.batch_size)


@dataclass(frozen=True, eq=False)
class Experiment:
    """One run's data, fleet, base model, adapters and plan, the same in every process that builds it from one config.

    `config` is for those who build a run of it and record it; cameras go by `plan`.
    """

    config: Config
    data: Dataset
    fleet: Fleet
    base: BaseModel
    adapters: tuple[Adapter, ...]
    plan: LocalPlan
    device: torch.device
    precision: Precision

    @property
    def adapter(self) -> Adapter:
        """What cameras train; where they differ in rank, that of the highest."""
        return max(self.adapters, key=lambda adapter: getattr(adapter, "rank", 0))

    def place(self, camera: int) -> int:
        """Which of `adapters` is a camera's: they are dealt round robin."""
        return camera % len(self.adapters)


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
    """Whether any camera may stand in frost that is made here: CIFAR-10-C's is on file."""
    if experiment.config.data.name == "cifar10c":
        return False
    return "frost" in experiment.fleet.corruptions


def open_data(config: Config) -> Dataset:
    """The data set of the config's `data` section."""
    d = config.data
    files, split = d.table(CifarData), d.table(FolderData)
    data = load(
        d.name,
        d.root,
        download=files.download,
        image_size=d.image_size,
        cloud_share=split.cloud_share,
        settings=d.settings("name") if d.outside() else None,
    )
    own = {name: config.fleet.settings("corruptions", name) for name in config.fleet.corruption_names}
    return replace(data, corruption_settings={name: settings for name, settings in own.items() if settings})


def build_experiment(config: Config) -> Experiment:
    """The experiment of a config; the last two are kept, so that a worker builds each once."""
    torch.set_num_threads(config.run.threads)  # results repeat at equal threads only
    for way in ("up", "down"):
        by_name(config.codec.build(way))  # each process reads what any other sends
    return _experiment(tuple(sorted(config.to_flat().items())))


@lru_cache(maxsize=2)
def _experiment(flat: tuple[tuple[str, Scalar], ...]) -> Experiment:
    config = Config.from_flat(dict(flat))
    device = torch.device(resolved_device(config.run.device))  # before data is opened, which may take minutes
    at(f"opening {config.data.name}")
    data = open_data(config)
    precision = resolved_precision(config.run.precision, device)
    at("dealing images to cameras")
    fleet = build_fleet(config.fleet, data, config.run.seed, cached_arrays)
    data.check_weathers(fleet.corruptions, clear=fleet.changing)  # some time the air is clear
    at("loading the base")
    base = load_base_model(config, data)
    plan = local_plan(config, precision, base.normalization)
    check_cameras(
        fleet.cameras,
        base.model,
        image_size=plan.image_size,
        batch_size=plan.recipe.batch_size,
        steps=plan.steps,
        window=plan.batch_norm.window,
        trains=plan.trains and plan.batch_norm.trains,
        local=plan.batch_norm.local,
    )
    return Experiment(config, data, fleet, base, _adapters(config, base, plan), plan, device, precision)


def local_plan(config: Config, precision: Precision, normalization: Normalization) -> LocalPlan:
    """The plan of a config, in this precision, on pixels normalised like this."""
    local, codec, strategy = config.local, config.codec, STRATEGIES.load(config.strategy.name)
    correlated, statistics = config.fleet.stream == "correlated", config.batch_norm.table(LocalStatistics)
    recipe = Recipe(
        lr=local.lr,
        momentum=local.momentum,
        weight_decay=local.weight_decay,
        clip_norm=local.clip_norm or float("inf"),
        batch_size=local.batch_size,
        augment=cast(Augment, local.augment),
        precision=precision,
        prox_mu=local.prox_mu,
        shuffled=not correlated,
        normalization=normalization,
    )
    return LocalPlan(
        seed=config.run.seed,
        rounds=config.run.rounds,
        recipe=recipe,
        cosine=local.schedule == "cosine",
        epochs=local.epochs,
        steps=local.steps,
        image_size=config.data.image_size,
        batch_norm=BatchNormPlan(config.batch_norm.mode, statistics.training_statistics == "fixed", statistics.window),
        uplink=UplinkCodec(codec.build("up"), codec.table(Topk).share, codec.error_feedback),
        block_size=1 if config.run.engine == "flower" else config.run.table(FleetEngine).block_size,
        correlated=correlated,
        trains=strategy.trains,
        sends=strategy.sends,
        updates=strategy.update_kind,
        clustered=strategy.personal_kind == "delta",
        fixed_basis=fixed_basis(config),
    )


def _adapters(config: Config, base: BaseModel, plan: LocalPlan) -> tuple[Adapter, ...]:
    """What cameras train: one adapter for all, or one for each of the ranks, with the same alpha / r.

    Under a rotating basis what is drawn stays for the round.
    """
    adapter = config.adapter
    dealt: list[Adapter] = [adapter.build("method", **_of_rank(adapter, rank)) for rank in adapter.ranks]
    if STRATEGIES.load(config.strategy.name).rotates:
        dealt = [one.with_frozen_basis() or one for one in dealt]
    if not plan.uplink.codec.lossless and STRATEGIES.load(config.strategy.name).draws_anew:
        dealt = [one.relative_to_init() for one in dealt]
    return tuple(one.fit_to(base.model) for one in dealt)


def _of_rank(config: AdapterConfig, rank: int) -> dict[str, float]:
    """What an adapter of one of several ranks has instead: alpha / r is that of the largest."""
    if len(config.ranks) == 1:
        return {}
    scaled = {"alpha": config.alpha / max(config.ranks) * rank} if "alpha" in config.settings("method") else {}
    return {"rank": rank, **scaled}
