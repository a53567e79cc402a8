"""THE way to train parameters as they are: their dense deltas are the state. Knows networks and names; not cameras.

`DenseAdapter` is the base of methods that do no more; other methods train the first convolution and the classifier so.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import set_tensors
from fed_lorac.adapters.plain import DENSE_NOTE, check_plain, copied
from fed_lorac.errors import FactorError

__all__ = ["DenseAdapter", "attach", "detach", "load_state", "read_state"]

_BEFORE = DENSE_NOTE  # the attribute of the network with its trained parameters as `attach` found them
_FLAGS = "_dense_flags"  # and the one with what was trained before


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
        attach(model, self.trained(model))

    def restart(self, model: nn.Module, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
        """Other weights; what is trained stays."""
        set_tensors(model, weights)
        restart(model)

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Every trained parameter's delta."""
        return read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Every trained parameter's delta, added to where it began."""
        load_state(model, state)

    def detach(self, model: nn.Module) -> None:
        """Every trained parameter back to where it began."""
        detach(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """A plain copy: the parameters themselves were trained."""
        merged = copied(model)
        detach(merged, keep=True)
        return merged


def attach(model: nn.Module, names: Collection[str]) -> None:
    """Train these parameters and no other from here on, in place; deltas count from the current values.

    The network is plain, as `plain.check_plain` says. FactorError, with nothing altered, for a name that means another
    thing in a state.
    """
    if pairs := sorted(name for name in names if name.endswith((".A", ".B"))):
        raise FactorError(
            "In a state a name that ends in .A or .B is a factor of a pair; this network has a parameter "
            f"{pairs[0]!r}, whose own delta would be read as one. Rename it."
        )
    setattr(model, _FLAGS, {name: p.requires_grad for name, p in model.named_parameters()})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        parameter.grad = None  # an optimizer would still move a frozen weight by a gradient left over
    trained = {name: p.detach().clone() for name, p in model.named_parameters() if name in names}
    setattr(model, _BEFORE, trained)


def restart(model: nn.Module) -> None:
    """Deltas count from the present values."""
    before = _before(model)
    before |= {name: model.get_parameter(name).detach().clone() for name in before}


@torch.no_grad()
def detach(model: nn.Module, *, keep: bool = False) -> None:
    """Back to the values, and which were trained, of before `attach`, in place; with `keep` the values stay."""
    before = _before(model)
    for name, value in before.items() if not keep else ():
        model.get_parameter(name).copy_(value).grad = None
    flags = getattr(model, _FLAGS)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    delattr(model, _BEFORE)
    delattr(model, _FLAGS)


def read_state(model: nn.Module) -> dict[str, Tensor]:
    """Name -> delta since `attach`: float32, contiguous, on the CPU, sorted by name."""
    pairs = {name: (model.get_parameter(name).detach(), before) for name, before in sorted(_before(model).items())}
    return {name: (now - before.to(now)).to("cpu", torch.float32).contiguous() for name, (now, before) in pairs.items()}


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set every trained parameter to its value at `attach` plus its delta; FactorError where names differ."""
    before = _before(model)
    if state.keys() != before.keys():
        odd = sorted(state.keys() ^ before.keys())[:3]
        raise FactorError(
            f"A state has every trained parameter, nothing else; differs in {odd}. Is it another method's, or model's?"
        )
    for name, value in before.items():
        model.get_parameter(name).copy_(value + state[name].to(value))


def _before(model: nn.Module) -> dict[str, Tensor]:
    if not hasattr(model, _BEFORE):
        raise FactorError("A state counts from attach; this network carries no adapter. Attach one first.")
    before: dict[str, Tensor] = getattr(model, _BEFORE)
    return before
