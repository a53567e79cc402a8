"""The site: what every process of a run shares, made from the config once. Knows config, data, fleet and base; not
messages, rounds or bytes."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from fed_lorac.adapters.methods import Adapter, adapter_of
from fed_lorac.base import Base, load_base
from fed_lorac.config import Config
from fed_lorac.config.rules import Scalar
from fed_lorac.data.datasets import Dataset, load
from fed_lorac.data.store import cached_arrays
from fed_lorac.fleet import Fleet, build_fleet
from fed_lorac.precision import Precision, resolved_device, resolved_precision

__all__ = ["Site", "open_data", "site_of"]


@dataclass(frozen=True, eq=False)
class Site:
    """One run's data, fleet, base and method, the same in every process that builds it from the same config."""

    config: Config
    data: Dataset
    fleet: Fleet
    base: Base
    adapter: Adapter
    device: torch.device
    precision: Precision


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
    data = open_data(config)
    device = torch.device(resolved_device(config.run.device))
    precision = resolved_precision(config.run.precision, device)
    fleet, base = build_fleet(config.fleet, data, config.run.seed, cached_arrays), load_base(config, data)
    if fleet.changing:
        data.clean(fleet.cameras[0].train[:1])  # some time the air is clear: a data set without such images says so
    return Site(config, data, fleet, base, adapter_of(config.adapter), device, precision)
