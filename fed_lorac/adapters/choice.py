"""Which layers are worth their bytes: what cameras say of each, and what a server makes of it. Knows layers' names,
numbers and what a layer's part of a state takes; not networks, cameras or frames.

Auto-RGN of surgical fine-tuning, Lee et al. 2023, arXiv 2210.11466, section 5: a layer matters as much as its relative
gradient norm, ||g|| / ||W||, is large. There it scales a layer's learning rate; here it ranks layers for a budget.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.errors import ConfigError

__all__ = ["CHOICE_KEY", "NORMS_KEY", "Budget", "choice_state", "chosen_in"]

NORMS_KEY = "relative_gradient_norms"
"""The tensor of a camera's reply that has each layer's norm, (layers,)."""

CHOICE_KEY = "layers"
"""The tensor of an update that says which layers are chosen, (layers,): 1 where one is, else 0."""


@dataclass(frozen=True)
class Budget:
    """A budget for what a camera sends of its adapter, and what that takes.

    Args:
        most_bytes: of a frame's payload.
        layers: that may be adapted, in the network's order.
        payload_bytes: tensors by name and shape -> what they take in a frame.
        template: name -> shape of every tensor of a state whose adapter is on all layers.

    Raises:
        ConfigError: not one layer fits.
    """

    most_bytes: int
    layers: tuple[str, ...]
    payload_bytes: Callable[[Mapping[str, Sequence[int]]], int] = field(repr=False)
    template: Mapping[str, Sequence[int]] = field(repr=False)

    def __post_init__(self) -> None:
        least = min(self.layers, key=lambda name: self.needed_bytes([name]))
        if (needed := self.needed_bytes([least])) > self.most_bytes:
            raise ConfigError(
                "adapter.budget_bytes must hold what is trained beside the layers, and one of them; got "
                f"{self.most_bytes:,}: with the smallest, {least}, a frame's payload is {needed:,} bytes, of which "
                f"{self.needed_bytes([]):,} are not the layer's. Give it {needed:,} at least, train no classifier or "
                "first convolution, or choose another codec.up."
            )

    def needed_bytes(self, chosen: Sequence[str]) -> int:
        """The payload of a state whose adapter is on these layers."""
        out = set(self.layers) - set(chosen)
        return self.payload_bytes({k: s for k, s in self.template.items() if k.rpartition(".")[0] not in out})

    def choose(self, norms: Float[Tensor, " layers"]) -> tuple[str, ...]:
        """The layers of the largest norms, in the network's order: from the largest on, each that still fits."""
        chosen: list[str] = []
        for place in torch.argsort(norms, descending=True, stable=True).tolist():
            if self.needed_bytes([*chosen, self.layers[place]]) <= self.most_bytes:
                chosen.append(self.layers[place])
        return tuple(name for name in self.layers if name in chosen)


def choice_state(layers: Sequence[str], chosen: Sequence[str]) -> dict[str, Tensor]:
    """The state that tells others of a choice among `layers`."""
    return {CHOICE_KEY: torch.tensor([float(name in chosen) for name in layers])}


def chosen_in(layers: Sequence[str], state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The inverse: the layers that a state says are chosen; empty where it says nothing of layers."""
    flags = state[CHOICE_KEY].tolist() if CHOICE_KEY in state else [0.0] * len(layers)
    return tuple(name for name, flag in zip(layers, flags, strict=True) if flag)
