"""The note on a network: what LoRA-C attached, and where its parts are. Knows names in a network; alters nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import init_factors
from fed_lorac.adapters.lora_c_conv import LoraConv2d
from fed_lorac.adapters.plain import LORA_C_NOTE
from fed_lorac.errors import FactorError

__all__ = ["NOTE", "Attachment", "attachment", "base_of", "branch_of", "conv_of", "draw", "factors_of", "weight_of"]

NOTE = LORA_C_NOTE  # the attribute of the network that holds its Attachment


@dataclass(frozen=True)
class Attachment:
    """What was attached to a network, in plain values, so that it travels with deepcopy."""

    rank: int  # r
    alpha: float
    rank_mode: str  # "r*k" or "r": "auto" is settled here
    kernel_wise: bool
    branches: tuple[str, ...]  # convolutions that carry factors
    dense: tuple[str, ...]  # layers whose weight is trained as it is
    required_grad: tuple[tuple[str, bool], ...]  # every parameter's flag before
    freeze_a: bool = False  # A stays as drawn, and is no part of the state

    @property
    def scale(self) -> float:
        """alpha / r, the factor of every branch."""
        return self.alpha / self.rank


def attachment(model: nn.Module) -> Attachment:
    """What is attached to this network; FactorError when nothing is."""
    note = getattr(model, NOTE, None)
    if not isinstance(note, Attachment):
        raise FactorError(f"This {type(model).__name__} carries no LoRA-C adapter. Call lora_c.attach first.")
    return note


def draw(model: nn.Module, note: Attachment, generator: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """Fresh factors (A, B) of every branch, drawn in the network's order."""
    return {
        name: init_factors(
            weight_of(model, name).shape, note.rank, note.rank_mode, generator, kernel_wise=note.kernel_wise
        )
        for name in note.branches
    }


def conv_of(model: nn.Module, name: str) -> nn.Conv2d:
    """The convolution of that name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    return layer


def branch_of(model: nn.Module, name: str) -> LoraConv2d:
    """The convolution of that name, with its branch."""
    layer = model.get_submodule(name)
    assert isinstance(layer, LoraConv2d)
    return layer


def factors_of(model: nn.Module, name: str) -> tuple[tuple[str, Tensor], ...]:
    """A branch's trained factors with their names in a state."""
    branch = branch_of(model, name)
    return (("B", branch.lora_B),) if attachment(model).freeze_a else (("A", branch.lora_A), ("B", branch.lora_B))


def weight_of(model: nn.Module, name: str) -> nn.Parameter:
    """A layer's weight: frozen under a branch, else trained as it is."""
    return model.get_parameter(f"{name}.weight")


def base_of(model: nn.Module, name: str) -> Tensor:
    """The value that a weight trained as it is had at the turn's start."""
    return model.get_buffer(f"{name}.lora_base")
