"""Adapters that train parameters as they are and send their changes: all, the norms', or the classifier's. Knows
networks; not cameras.

`select` says which parameters a method trains; norm layers are found by type, as by name one would miss `downsample.1`.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fed_lorac.adapters.plain import DENSE_NOTE, check_plain
from fed_lorac.errors import FactorError

__all__ = ["attach", "detach", "everything", "load_state", "norms_and_ends", "probe", "read_state"]

_BEFORE = DENSE_NOTE  # the attribute of the network with its trained parameters at the turn's start
_FLAGS = "_dense_flags"  # and the one with what was trained before
_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def everything(model: nn.Module) -> list[str]:
    """Full fine-tuning."""
    return [name for name, _ in model.named_parameters()]


def norms_and_ends(model: nn.Module, *, first_conv: bool, classifier: bool) -> list[str]:
    """Norm layers' weights and biases and, where asked, the first convolution's and the classifier's weight."""
    norms = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    found = [name for name, p in model.named_parameters() if id(p) in norms]
    if not found:
        raise FactorError("bn-affine trains norm layers' weights and biases; this network has none. Choose another.")
    ends = [_first(model)] * first_conv + [_last(model)] * classifier
    return [*found, *(f"{name}.weight" for name in ends)]


def probe(model: nn.Module) -> list[str]:
    """The classifier's weight and bias."""
    name = _last(model)
    return [f"{name}.{own}" for own, _ in model.get_submodule(name).named_parameters(recurse=False)]


def attach(model: nn.Module, names: Collection[str]) -> None:
    """Train these parameters and no other from here on, in place; changes count from the current values.

    FactorError, with nothing altered, for a network that is not plain (`plain.check_plain`), or a name that means
    another thing in a state.
    """
    check_plain(model)
    if pairs := sorted(name for name in names if name.endswith((".A", ".B"))):
        raise FactorError(
            "In a state a name that ends in .A or .B is a factor of a pair; this network has a parameter "
            f"{pairs[0]!r}, whose own change would be read as one. Rename it."
        )
    setattr(model, _FLAGS, {name: p.requires_grad for name, p in model.named_parameters()})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    trained = {name: p.detach().clone() for name, p in model.named_parameters() if name in names}
    setattr(model, _BEFORE, trained)


@torch.no_grad()
def detach(model: nn.Module, *, keep: bool = False) -> None:
    """Back to the values, and which were trained, of before `attach`, in place; with `keep` the values stay."""
    for name, value in _before(model).items() if not keep else ():
        model.get_parameter(name).copy_(value)
    flags = getattr(model, _FLAGS)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    delattr(model, _BEFORE)
    delattr(model, _FLAGS)


def read_state(model: nn.Module) -> dict[str, Tensor]:
    """Name -> change since `attach`, float32 on the CPU, sorted by name."""
    return {
        name: (model.get_parameter(name).detach() - before).to("cpu", torch.float32)
        for name, before in sorted(_before(model).items())
    }


@torch.no_grad()
def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set every trained parameter to its value at `attach` plus its change; FactorError where names differ."""
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
        raise FactorError("Changes are read since attach; nothing was attached. Call dense.attach first.")
    before: dict[str, Tensor] = getattr(model, _BEFORE)
    return before


def _first(model: nn.Module) -> str:
    return _one([name for name, module in model.named_modules() if isinstance(module, _ConvNd)], 0, "a convolution")


def _last(model: nn.Module) -> str:
    return _one([name for name, module in model.named_modules() if isinstance(module, nn.Linear)], -1, "an nn.Linear")


def _one(names: list[str], place: int, what: str) -> str:
    if not names:
        raise FactorError(
            f"This method trains {what} as it is; this network has none. Leave it out, or choose another."
        )
    return names[place]
