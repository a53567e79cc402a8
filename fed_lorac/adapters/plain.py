"""Plain networks: what every adapter takes for granted of a network. Knows modules and their tensors; alters nothing.

A state is tensors by name. So a layer keeps its weight as an nn.Parameter, and that has one name and memory of its own:
then what is trained, sent, folded in and merged is one and the same tensor. Where a weight is made anew in each forward
pass (pruning, weight norm, spectral norm, any parametrization), its delta is lost; where it is tied, its delta
changes another layer, unsaid.
"""

import copy
from collections import defaultdict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fed_lorac.errors import FactorError

__all__ = ["DENSE_NOTE", "RATES_NOTE", "altered", "carrier", "check_plain", "copied", "ties"]

DENSE_NOTE = "_dense_before"  # the attribute of a network by which it is known to carry an adapter

RATES_NOTE = "_lr_factors"
"""The attribute of a network with what the learning rate is multiplied by for some of its parameters, by name."""

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_WEIGHTED = (_ConvNd, nn.Linear, _NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.Embedding)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def check_plain(model: nn.Module) -> None:
    """FactorError that names the first layer whose weights an adapter could not change, what it is and the remedy."""
    _refuse_attached(model)
    for name, module in model.named_modules():
        if failure := next(_failures(module), None):
            what, remedy = failure
            raise FactorError(
                "An adapter changes weights that are parameters of their own, dense and floating-point; "
                f"{_called(name, module)} {what}. {remedy}"
            )
    _refuse_half_built(model)
    if tied := ties(model):
        raise FactorError(_tied(model, *tied[0]))


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; FactorError where there can be none, as a layer keeps a tensor of a forward pass."""
    try:
        return copy.deepcopy(model)
    except Exception as cause:  # a network's attributes may be anything, and raise anything
        raise FactorError(
            f"What is merged or folded is a copy of the network; this {type(model).__name__} cannot be copied: "
            f"{cause}. Does a layer keep a tensor of a forward pass (an activation, the weight of a weight norm)? "
            "Delete it first."
        ) from cause


def altered(layer: nn.Module) -> str:
    """How a call of this layer is more than its class's `forward`, in words; "" where it is not."""
    if {"forward", "_conv_forward"} & vars(layer).keys():
        return "has a forward of its own"
    if any(getattr(layer, hooks) for hooks in _HOOKS):
        return "has hooks"
    return "is compiled" if vars(layer).get("_compiled_call_impl") is not None else ""


def carrier(model: nn.Module) -> str:
    """The first layer that carries an adapter, or the network that does, in words; "" for a network without one."""
    branches = ((n, m) for n, m in model.named_modules() if hasattr(m, "effective_weight"))
    notes = ((n, m) for n, m in model.named_modules() if DENSE_NOTE in vars(m))
    found = next(chain(branches, notes), None)
    return _called(*found) if found else ""


def _refuse_attached(model: nn.Module) -> None:
    if found := carrier(model):
        raise FactorError(
            f"A network carries one adapter at a time; {found} has one. Detach it first, or attach to what it merges "
            "to."
        )


def _called(name: str, module: nn.Module) -> str:
    return f"layer {name!r}, a {type(module).__name__}," if name else f"the network, a {type(module).__name__},"


def _failures(module: nn.Module) -> Iterator[tuple[str, str]]:
    """What is wrong with a layer's own tensors, and what to do about it."""
    if isinstance(module, torch.jit.ScriptModule):
        yield "is TorchScript", "Attach to the Python network, and script what is merged."
    if type(module).__module__.startswith("torch.ao.") and ".quantized" in type(module).__module__:
        yield "is quantized", "Attach to the network of before, and quantize what is merged."
    yield from _remade(module)
    for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield from _unfit(own, tensor)
    yield from _unregistered(module)


def _remade(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Tensors that are made anew of others in each forward pass."""
    if parametrize.is_parametrized(module):
        for own, kinds in module.parametrizations.items():  # type: ignore[union-attr, operator]
            said = ", ".join(type(kind).__name__.lstrip("_") for kind in kinds)
            remove = f'torch.nn.utils.parametrize.remove_parametrizations(layer, "{own}")'
            yield f"has a parametrized {own} ({said})", f"Make the value of now permanent first: {remove}."
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            own = hook._tensor_name
            remove = f'torch.nn.utils.prune.remove(layer, "{own}")'
            yield f"has a pruned {own} ({type(hook).__name__})", f"Make the pruning permanent first: {remove}."
        elif isinstance(hook, WeightNorm | SpectralNorm):
            norm = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
            remove = f'torch.nn.utils.remove_{norm}(layer, "{hook.name}")'
            yield f"has a {hook.name} under {norm}", f"Make the value of now permanent first: {remove}."


def _unfit(own: str, tensor: Tensor) -> Iterator[tuple[str, str]]:
    """What is wrong with one parameter or buffer."""
    if is_lazy(tensor):
        yield f"has no shape for its {own} yet", "Run a batch through the network first."
        return
    if own.startswith("lora_"):
        yield f"has a tensor {own} of another adapter", "Detach that adapter first, or merge it."
    if not isinstance(tensor, nn.Parameter):
        return
    if type(tensor.data) is not Tensor or tensor.layout != torch.strided:
        what = type(tensor.data).__name__ if type(tensor.data) is not Tensor else tensor.layout
        yield f"has a {own} of the kind {what}", "Make it a dense torch.Tensor first."
    elif tensor.dtype not in _FLOATS:
        yield f"has a {own} of {tensor.dtype}", "Attach to the network in float32, float64, bfloat16 or float16."
    elif tensor.is_inference():
        remedy = f"Outside that mode, set layer.{own} = nn.Parameter(layer.{own}.clone())."
        yield f"has a {own} that was made in torch.inference_mode, which can't be trained", remedy


def _unregistered(module: nn.Module) -> Iterator[tuple[str, str]]:
    """A weight or bias that is a tensor, but no nn.Parameter: of PyTorch's own layers alone, as others may mean it."""
    if not isinstance(module, _WEIGHTED):
        return
    parameters = dict(module.named_parameters(recurse=False))
    for own in ("weight", "bias"):
        if own not in parameters and isinstance(getattr(module, own, None), Tensor):
            remedy = f"Register it: value = layer.{own}; del layer.{own}; layer.{own} = nn.Parameter(value.detach())."
            yield f"has a {own} that is no nn.Parameter", remedy
    if module.weight is None and isinstance(module, _ConvNd | nn.Linear):
        yield "has no weight", "Give it one."


def _refuse_half_built(model: nn.Module) -> None:
    """All parameters on the meta device are a study of shapes; some are a network that was not loaded to its end."""
    tensors = dict(chain(model.named_parameters(), model.named_buffers()))
    missing = [name for name, tensor in tensors.items() if tensor.is_meta]
    if missing and not all(p.is_meta for p in model.parameters()):
        raise FactorError(
            f"An adapter is attached to a network that has its values; {len(missing)} of {len(tensors)} tensors have "
            f"none, {missing[0]!r} first: they are on the meta device. Load them first."
        )


def _tied(model: nn.Module, first: str, second: str) -> str:
    law = "A state has each delta under one name, so no two tensors of a network are one"
    layers = [model.get_submodule(name.rpartition(".")[0]) for name in (first, second)]
    if layers[0] is layers[1] and first.rpartition(".")[2] == second.rpartition(".")[2]:
        a, b = (name.rpartition(".")[0] for name in (first, second))
        return (
            f"{law}; layers {a!r} and {b!r} are one {type(layers[0]).__name__} under two names. Register it once and "
            f"call it twice, or give {b!r} a copy.deepcopy of it."
        )
    return (
        f"{law}; {first!r} and {second!r} are tied: they share memory, and a change of one changes the other. Untie "
        f"them first: give {second!r} a copy of its own (tensor.detach().clone())."
    )


# Ties: tensors that are one under two names, or lie in the same memory


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in its storage, in bytes, and whether training moves it: constants may be shared."""

    name: str
    moves: bool
    start: int
    end: int


def ties(model: nn.Module) -> list[tuple[str, str]]:
    """Pairs of names of tensors that overlap in memory, at least one of them a parameter or a running statistic.

    A parameter, or a layer, that is registered twice is tied to itself. Views of one storage that do not overlap are
    not tied.
    """
    places = defaultdict(list)
    for name, tensor, moves in _tensors(model):
        storage, start, end = _memory(tensor)
        places[storage].append(_Place(name, moves, start, end))
    return [
        (a.name, b.name)
        for group in places.values()
        for a, b in combinations(group, 2)
        if (a.moves or b.moves) and a.start < b.end and b.start < a.end
    ]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    yield from ((name, p, True) for name, p in model.named_parameters(remove_duplicate=False))
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module.named_buffers(prefix, recurse=False):
            yield name, buffer, isinstance(module, _NormBase)


def _memory(tensor: Tensor) -> tuple[Hashable, int, int]:
    """Storage, first byte and the byte after the last; a tensor without such memory is identified by its id."""
    if is_lazy(tensor) or type(tensor.data) is not Tensor or tensor.layout != torch.strided or tensor.is_meta:
        return id(tensor), 0, 1
    size, first = tensor.element_size(), int(tensor.storage_offset())
    last = first + sum((n - 1) * int(step) for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    storage = (tensor.device, tensor.untyped_storage().data_ptr())
    return storage, first * size, (last + 1) * size if tensor.numel() else first * size
