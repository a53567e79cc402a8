"""Full fine-tuning as an adapter: every parameter is trained and its change is sent. Knows networks; not cameras."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fed_lorac.errors import FactorError

__all__ = ["attach", "load_state", "read_state"]

_BEFORE = "_full_before"  # the attribute of the network with its parameters at the turn's start


def attach(model: nn.Module) -> None:
    """Train every parameter from here on, in place; changes count from the current values."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    setattr(model, _BEFORE, {name: p.detach().clone() for name, p in model.named_parameters()})


def read_state(model: nn.Module) -> dict[str, Tensor]:
    """Name -> change since `attach`, float32 on the CPU, sorted by name."""
    before = _before(model)
    return {
        name: (p.detach() - before[name]).to("cpu", torch.float32)
        for name, p in sorted(model.named_parameters(), key=lambda item: item[0])
    }


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set every parameter to its value at `attach` plus its change; FactorError where names differ."""
    before = _before(model)
    if state.keys() != before.keys():
        odd = sorted(state.keys() ^ before.keys())[:3]
        raise FactorError(
            f"A full state has every parameter and nothing else; differs in {odd}. Is it another model's?"
        )
    for name, parameter in model.named_parameters():
        parameter.copy_(before[name] + state[name].to(before[name]))


def _before(model: nn.Module) -> dict[str, Tensor]:
    if not hasattr(model, _BEFORE):
        raise FactorError("Full fine-tuning reads changes since attach; nothing was attached. Call full.attach first.")
    before: dict[str, Tensor] = getattr(model, _BEFORE)
    return before
