"""DenseAdapter: the base of methods that train some of a network's parameters as they are, and nothing else. Knows
networks and names; not cameras."""

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from fed_lorac.adapters.branched import BranchAdapter
from fed_lorac.adapters.plain import check_plain

__all__ = ["DenseAdapter"]


@dataclass(frozen=True)
class DenseAdapter(BranchAdapter):
    """An adapter that trains parameters as they are: a subclass says which."""

    linear = True

    @abstractmethod
    def trained(self, model: nn.Module) -> Collection[str]:
        """Names of a plain network's parameters that are trained; FactorError where it has none of them."""

    def trained_beside(self, model: nn.Module) -> Collection[str]:
        """All that is trained."""
        return self.trained(model)

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """These parameters are trained, and no other."""
        check_plain(model)  # what is trained is looked for among plain layers
        super().attach(model, generator)
