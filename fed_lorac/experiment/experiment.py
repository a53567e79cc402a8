"""The site: what every process of a run shares, made from the config once. Knows config, data, fleet and base; not
messages, rounds or bytes."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from fed_lorac.adapters.adapter import Adapter, Expansion
from fed_lorac.adapters.methods import adapter_of
from fed_lorac.config import Config, names
from fed_lorac.config.rules import Scalar
from fed_lorac.config.sense import fixed_basis
from fed_lorac.data.datasets import Dataset, load
from fed_lorac.data.progress import at
from fed_lorac.data.store import cached_arrays
from fed_lorac.experiment.base_model import Base, load_base
from fed_lorac.fleet.fleet import Fleet, build_fleet
from fed_lorac.runtime.precision import Precision, resolved_device, resolved_precision
from fed_lorac.seeds import torch_stream
from fed_lorac.training.batch_norm import check_cameras

__all__ = ["Site", "drawn_from", "expansion", "open_data", "sees_frost", "site_of"]


@dataclass(frozen=True, eq=False)
class Site:
    """One run's data, fleet, base and method, the same in every process that builds it from the same config."""

    config: Config
    data: Dataset
    fleet: Fleet
    base: Base
    adapters: tuple[Adapter, ...]
    device: torch.device
    precision: Precision

    @property
    def adapter(self) -> Adapter:
        """What cameras train; where they differ in rank, that of the highest."""
        return max(self.adapters, key=lambda adapter: getattr(adapter, "rank", 0))

    def place(self, camera: int) -> int:
        """Which of `adapters` is a camera's: they are dealt round robin."""
        return camera % len(self.adapters)


def drawn_from(site: Site, round: int) -> torch.Generator:
    """Where adapters of a round draw from: the same for every camera, and in every round where the basis stays.

    A mean of B_k A_k over one A to begin with is nearest to low rank, and svd down loses least.
    """
    return torch_stream(site.config.run.seed, "adapter", 0 if fixed_basis(site.config) else round)


@lru_cache(maxsize=2)
def expansion(site: Site, round: int) -> Expansion:
    """What the states of a round say, as changes of the base's tensors."""
    return site.adapter.expansion(site.base.model, drawn_from(site, round))


def sees_frost(site: Site) -> bool:
    """Whether any camera may stand in frost that is made here: CIFAR-10-C's is on file."""
    if site.config.data.name == "cifar10c":
        return False
    return "frost" in site.fleet.corruptions


def open_data(config: Config) -> Dataset:
    """The data set of the config's `data` section."""
    d = config.data
    return load(d.name, d.root, download=d.download, image_size=d.image_size, cloud_share=d.cloud_share)


def site_of(config: Config) -> Site:
    """The site of a config; the last two are kept, so that a worker builds each once."""
    torch.set_num_threads(config.run.threads)  # results repeat at equal threads only
    return _site(tuple(sorted(config.to_flat().items())))


@lru_cache(maxsize=2)
def _site(flat: tuple[tuple[str, Scalar], ...]) -> Site:
    config = Config.from_flat(dict(flat))
    device = torch.device(resolved_device(config.run.device))  # before data is opened, which may take minutes
    at(f"opening {config.data.name}")
    data = open_data(config)
    precision = resolved_precision(config.run.precision, device)
    at("dealing images to cameras")
    fleet = build_fleet(config.fleet, data, config.run.seed, cached_arrays)
    data.check_weathers(fleet.corruptions, clear=fleet.changing)  # some time the air is clear
    at("loading the base")
    base = load_base(config, data)
    check_cameras(config, fleet.cameras, base.model)
    return Site(config, data, fleet, base, _adapters(config, base), device, precision)


def _adapters(config: Config, base: Base) -> tuple[Adapter, ...]:
    """What cameras train: one adapter for all, or one for each of the ranks, with the same alpha / r.

    Under a rotating basis LoRA-C's A is drawn and stays for the round.
    """
    adapter = config.adapter
    if config.strategy.name == "rotating-basis" and adapter.method == "lora-c":
        adapter = replace(adapter, method="lora-c-ffa")
    scale = adapter.alpha / adapter.rank
    dealt = [adapter_of(replace(adapter, rank=r, alpha=scale * r, ranks="")) for r in adapter.rank_list]
    if config.codec.up not in names.LOSSLESS and config.strategy.name in names.DRAW_ANEW:
        dealt = [one.as_change() for one in dealt]
    return tuple(one.prepared(base.model) for one in dealt)
