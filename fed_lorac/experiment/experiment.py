"""The experiment: what every process of a run shares, built from the config once. Knows config, data, fleet and base;
not messages, rounds or bytes."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from fed_lorac.adapters.adapter import Adapter, ToDelta
from fed_lorac.config import AdapterConfig, CifarData, Config, FolderData, names
from fed_lorac.data.datasets import Dataset, load
from fed_lorac.data.progress import at
from fed_lorac.data.store import cached_arrays
from fed_lorac.experiment.base_model import BaseModel, load_base_model
from fed_lorac.experiment.local_plan import LocalPlan, local_plan
from fed_lorac.fleet.fleet import Fleet, build_fleet
from fed_lorac.registry import STRATEGIES
from fed_lorac.runtime.precision import Precision, resolved_device, resolved_precision
from fed_lorac.runtime.settings import Scalar
from fed_lorac.seeds import torch_stream
from fed_lorac.training.batch_norm import check_cameras

__all__ = ["Experiment", "build_experiment", "drawn_from", "open_data", "sees_frost", "to_delta"]


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
    return load(d.name, d.root, download=files.download, image_size=d.image_size, cloud_share=split.cloud_share)


def build_experiment(config: Config) -> Experiment:
    """The experiment of a config; the last two are kept, so that a worker builds each once."""
    torch.set_num_threads(config.run.threads)  # results repeat at equal threads only
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
    return Experiment(config, data, fleet, base, _adapters(config, base), plan, device, precision)


def _adapters(config: Config, base: BaseModel) -> tuple[Adapter, ...]:
    """What cameras train: one adapter for all, or one for each of the ranks, with the same alpha / r.

    Under a rotating basis what is drawn stays for the round.
    """
    adapter = config.adapter
    dealt: list[Adapter] = [adapter.build("method", **_of_rank(adapter, rank)) for rank in adapter.ranks]
    if STRATEGIES.load(config.strategy.name).rotates:
        dealt = [one.with_frozen_basis() or one for one in dealt]
    if config.codec.up not in names.LOSSLESS and STRATEGIES.load(config.strategy.name).draws_anew:
        dealt = [one.relative_to_init() for one in dealt]
    return tuple(one.fit_to(base.model) for one in dealt)


def _of_rank(config: AdapterConfig, rank: int) -> dict[str, float]:
    """What an adapter of one of several ranks has instead: alpha / r is that of the largest."""
    if len(config.ranks) == 1:
        return {}
    scaled = {"alpha": config.alpha / max(config.ranks) * rank} if "alpha" in config.settings("method") else {}
    return {"rank": rank, **scaled}
