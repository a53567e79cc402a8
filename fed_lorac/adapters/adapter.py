"""An adapter: what of a network is trained, how that is read as a state, and what a state says. Knows networks and
states; not cameras, rounds or bytes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.deltas import State
from fed_lorac.adapters.plain import copied

__all__ = ["Adapter", "ToDelta", "is_delta_already"]

ToDelta = Callable[[State], State]
"""A state -> the change of the network's tensors that it stands for, as `fed_lorac.adapters.deltas` has it."""


def is_delta_already(state: State) -> State:
    """The to_delta of states that are changes already."""
    return state


class Adapter(ABC):
    """One way to adapt a network. A state is what a camera sends: tensors by name.

    Factors and dense changes say by themselves what they change. Where a part of the change is frozen and known to
    both ends (a drawn A, a weight's coefficients), the state is without it and `to_delta` puts it back.
    """

    linear: ClassVar[bool] = False
    """Whether the change is linear in the state: the mean of states then is the mean of changes."""

    @property
    def scale(self) -> float:
        """What an expanded state's factor products are multiplied by."""
        return 1.0

    def fit_to(self, base: nn.Module) -> Self:
        """This adapter with what it takes from a starting base's weights; itself, where that is nothing."""
        return self

    def relative_to_init(self) -> "Adapter":
        """This adapter with a state that is, as far as it can be, the change since `attach`: for codecs that lose a
        share of what they are given, who is given values that the other end knows loses them for nothing."""
        return self

    @abstractmethod
    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Make a plain network trainable this way, in place; its outputs do not change yet.

        FactorError, with nothing altered, where it is not plain: see `plain.check_plain`, which comes first.
        """

    @abstractmethod
    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """The state since `attach`: float32, on the CPU, sorted by name."""

    @abstractmethod
    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put a state that was read before into a network attached alike; FactorError on a misfit."""

    @abstractmethod
    def detach(self, model: nn.Module) -> None:
        """Take the adapter off, in place: the plain network it was attached to, its trained values gone."""

    @abstractmethod
    def merge(self, model: nn.Module) -> nn.Module:
        """A copy with the change folded into its weights: a plain network, with the same outputs; the attached one
        stays as it is."""

    def delta(self, model: nn.Module) -> dict[str, Tensor]:
        """The dense change of every parameter that has changed, by name."""
        plain = copied(model)
        self.detach(plain)
        merged = dict(self.merge(model).named_parameters())
        changes = {name: merged[name].detach() - before.detach() for name, before in plain.named_parameters()}
        return {name: change for name, change in changes.items() if change.any()}

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """What states mean that were read from a network like `base`, attached by a generator in the same state.

        The change it gives is of float32 tensors on the CPU, and its products are still to be multiplied by `scale`.
        """
        return is_delta_already
