"""What cameras train, fitted to the base: one adapter for all or one a rank, on the layers that a config names, or that
a server has chosen. Knows a config and a base; not messages."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import cast

from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.parts import Parts
from fed_lorac.adapters.settled import NOTHING, Settled
from fed_lorac.adapters.targets import ALL_LAYERS
from fed_lorac.config import AdapterConfig, Config
from fed_lorac.experiment.base_model import BaseModel
from fed_lorac.experiment.experiment import Experiment, LocalPlan

__all__ = ["build_adapters", "candidates", "prepared", "settled_on"]


def prepared(config: Config, base: BaseModel) -> BaseModel:
    """The base as what cameras train needs it."""
    return base.prepared(config.adapter.first())


def build_adapters(config: Config, base: BaseModel, plan: LocalPlan, settled: Settled = NOTHING) -> tuple[Adapter, ...]:
    """What cameras train: one adapter for all, or one for each of the ranks, with the same alpha / r.

    Under a rotating basis what is drawn stays for the round. Where a server chooses the layers they are all, until it
    has `settled` them; where it finds bases they are the weights', until then.
    """
    adapter = config.adapter
    where = {"layers": ", ".join(settled.layers) or ALL_LAYERS} if adapter.chooses else {}
    adapters: list[Adapter] = [adapter.build("method", **_of_rank(adapter, rank), **where) for rank in adapter.ranks]
    if settled.bases is not None:
        adapters = [one.with_bases(settled.bases.of) for one in adapters]
    strategy = config.strategy.strategy()
    adapters = [strategy.adapted(one) for one in adapters]
    if not plan.uplink.codec.lossless and strategy.draws_anew:
        adapters = [one.relative_to_init() for one in adapters]
    return _fitted(adapters, base.model)


def _fitted(adapters: Sequence[Adapter], model: nn.Module) -> tuple[Adapter, ...]:
    """With what each takes from the network; of several ranks all train those layers as they are that the largest
    trains so."""
    first = max(adapters, key=lambda one: getattr(one, "rank", 0))
    largest = first.fit_to(model)
    return tuple(largest if one is first else one.fit_like(largest, model) for one in adapters)


def _of_rank(config: AdapterConfig, rank: int) -> dict[str, float]:
    """What an adapter of one of several ranks has instead: alpha / r is that of the largest."""
    if len(config.ranks) == 1:
        return {}
    scaled = {"alpha": config.alpha / max(config.ranks) * rank} if "alpha" in config.settings("method") else {}
    return {"rank": rank, **scaled}


@lru_cache(maxsize=2)
def candidates(experiment: Experiment) -> tuple[str, ...]:
    """The layers that a server may choose among, in the network's order, whether it has chosen yet or not."""
    adapter = experiment.adapter
    if not experiment.plan.budget_bytes:
        place = experiment.adapters.index(adapter)
        adapter = build_adapters(experiment.config, experiment.base, experiment.plan)[place]
    return cast(ConvAdapter | Parts, adapter).convolutions(experiment.base.model)


@lru_cache(maxsize=2)
def settled_on(experiment: Experiment, settled: Settled) -> Experiment:
    """The experiment with its adapters on the layers that the server has chosen, or between the bases that it has
    found; itself, where nothing is settled."""
    if settled == NOTHING:
        return experiment
    adapters = build_adapters(experiment.config, experiment.base, experiment.plan, settled)
    plan = replace(experiment.plan, budget_bytes=0, finds_bases=False)
    after = replace(experiment, adapters=adapters, plan=plan)
    object.__setattr__(after, "_seen", experiment._seen)  # their cameras see the same
    return after
