"""DenseAdapter: the base of methods that train some of a network's parameters as they are, and nothing else. Knows
networks and names; not cameras."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import load_dense, read_dense, restart_dense, set_tensors, stop_dense, train_dense
from fed_lorac.adapters.plain import check_plain, copied

__all__ = ["DenseAdapter"]


@dataclass(frozen=True)
class DenseAdapter(Adapter):
    """An adapter that trains parameters as they are: a subclass says which."""

    linear = True

    @abstractmethod
    def trained(self, model: nn.Module) -> Collection[str]:
        """Names of a plain network's parameters that are trained; FactorError where it has none of them."""

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """These parameters are trained, and no other."""
        check_plain(model)  # what is trained is looked for among plain layers
        train_dense(model, self.trained(model))

    def restart(self, model: nn.Module, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
        """Other weights; what is trained stays."""
        set_tensors(model, weights)
        restart_dense(model)

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Every trained parameter's delta."""
        return read_dense(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Every trained parameter's delta, added to where it began."""
        load_dense(model, state)

    def detach(self, model: nn.Module) -> None:
        """Every trained parameter back to where it began."""
        stop_dense(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """A plain copy: the parameters themselves were trained."""
        merged = copied(model)
        stop_dense(merged, keep=True)
        return merged
