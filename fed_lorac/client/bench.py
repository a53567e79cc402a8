"""The networks that a round's local updates start from. Knows networks, adapters and states; not images or frames."""

import copy
from collections.abc import Collection, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.client.state import ClientState, GlobalModel, build_network, initial_state, personal_parameters
from fed_lorac.experiment.experiment import Experiment, drawn_from
from fed_lorac.training.accuracy import batch_norms

__all__ = ["Bench", "bench_of", "set_training_mode"]


class Bench:
    """Networks that a round's training starts from: made once and filled anew for each block, as copies take longer."""

    def __init__(self, experiment: Experiment, global_model: GlobalModel, round: int, adapter: Adapter) -> None:
        model = build_network(experiment, global_model, {})
        adapter.attach(model, drawn_from(experiment, round))
        if global_model.factors:
            adapter.load(model, {**adapter.read(model), **global_model.factors})
        set_training_mode(experiment, model)
        self._models, self._adapter = [model], adapter
        self._fresh = {name: value.detach().clone() for name, value in _moving(model)}

    @torch.no_grad()
    def models(self, experiment: Experiment, states: Collection[ClientState]) -> list[nn.Module]:
        """One network for each of these states, in training mode, its adapter attached."""
        self._models += [copy.deepcopy(self._models[0]) for _ in range(len(states) - len(self._models))]
        models = self._models[: len(states)]
        for model, state in zip(models, states, strict=True):
            statistics = state.statistics
            for name, value in _moving(model):
                value.copy_(statistics.get(name, self._fresh[name]))
            if personal := personal_parameters(experiment, state.personal_frame):
                self._adapter.load(model, initial_state(personal, self._adapter.read(model)))
        return models

    @torch.no_grad()
    def reset(self, model: nn.Module) -> None:
        """Give one of these networks a fresh adapter: what it was trained to is gone."""
        for name, value in _moving(model):
            value.copy_(self._fresh[name])


@lru_cache(maxsize=1)
def bench_of(experiment: Experiment, global_model: GlobalModel, round: int, place: int) -> Bench:
    """The bench of the round at hand; cameras with adapters of one shape share it, as they share the global model."""
    return Bench(experiment, global_model, round, experiment.adapters[place])


def _moving(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What training changes: trained parameters and buffers."""
    yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    yield from model.named_buffers()


def set_training_mode(experiment: Experiment, model: nn.Module) -> None:
    """Training mode, but for batch norm that no batch is to move."""
    model.train()
    if not experiment.plan.batch_norm.trains:
        for _, norm in batch_norms(model):
            norm.eval()
