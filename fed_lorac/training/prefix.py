"""A network as two programs, one after the other: its prefix, which no training touches, and the rest. Knows calls
between layers, by torch.fx; not images, cameras or steps.

A network's calls are taken in the order in which it makes them. The prefix ends before the first that may give another
answer at another step: a trained layer, one that takes its statistics from the batch, draws or has state, or a
function that is not known here. It ends at the last call before that whose output is all that is read of it later, so
each program makes the very calls that the network makes.
"""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn.modules.batchnorm import _NormBase

from fed_lorac.adapters.dataflow import calls_of
from fed_lorac.adapters.plain import altered
from fed_lorac.errors import FactorError
from fed_lorac.training.blocks import draws
from fed_lorac.training.blocks.families import form_of
from fed_lorac.training.blocks.layers import Side, SideBatchNorm

__all__ = ["Program", "Split", "split"]

_HOMES = ("torch", "torchvision", "timm", "fed_lorac")  # whose layers have no state but what is asked for below
_OPERATORS = [operator.add, operator.iadd, operator.mul, operator.imul, operator.sub, operator.mod, operator.floordiv]
_TORCH = [torch.add, torch.mul, torch.cat, torch.stack, torch.chunk, torch.flatten, torch.transpose, torch.permute]
_ACTIVATIONS = [F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh]
_OTHERS = [
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    F.pad,
    F.avg_pool2d,
    F.adaptive_avg_pool2d,
    F.layer_norm,
    F.group_norm,
]
_FUNCTIONS = frozenset([*_OPERATORS, operator.getitem, *_TORCH, *_ACTIVATIONS, *_OTHERS])
_SHAPES = ["chunk", "contiguous", "flatten", "permute", "reshape", "size", "transpose", "unflatten", "view"]
_METHODS = frozenset([*_SHAPES, "add", "mean", "mul", "relu", "sigmoid"])


class Program:
    """Some of a network's calls, in its order, of its own layers as they are at the time."""

    def __init__(self, network: nn.Module, entry: fx.Node, calls: Sequence[fx.Node]) -> None:
        self._network, self._entry = network, entry
        last_use = {used: node for node in calls for used in node.all_input_nodes}
        spent: dict[fx.Node, list[fx.Node]] = {node: [] for node in calls}
        for used, node in last_use.items():
            spent[node].append(used)
        self._calls = [(node, spent[node], self._module(node)) for node in calls]

    def __call__(self, x: Tensor) -> Any:
        """What the last call gives where the first ones are given x."""
        known: dict[fx.Node, Any] = {self._entry: x}
        found: Any = x
        for node, spent, module in self._calls:
            args, kwargs = map_arg(node.args, known.__getitem__), map_arg(node.kwargs, known.__getitem__)
            if module is not None:
                found = module(*args, **kwargs)
            elif node.op == "call_function":
                found = node.target(*args, **kwargs)  # type: ignore[operator]
            elif node.op == "call_method":
                found = getattr(args[0], str(node.target))(*args[1:], **kwargs)
            elif node.op == "get_attr":
                found = operator.attrgetter(str(node.target))(self._network)
            else:  # the output
                found = args[0]
            known[node] = found
            for one in spent:  # as the network's own code lets go of what it is done with
                del known[one]
        return found

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._network.get_submodule(str(node.target)) if node.op == "call_module" else None


@dataclass(frozen=True, eq=False)
class Split:
    """A network f as f(x) = after(before(x)); `before` ends with the layer `last`."""

    before: Program
    after: Program
    last: str


def split(network: nn.Module, like: nn.Module) -> Split | str:
    """The network split behind its longest prefix, or why it has none.

    Args:
        network: `like` itself, or several like it side by side; each module's mode is the one that it will train in.
        like: a network as it will be trained.
    """
    if next(iter(like.parameters())).requires_grad:
        return "its first layer is trained"
    for name, module in like.named_modules():
        if how := altered(module):
            return f"{name or 'the network'}, a {type(module).__name__}, {how}"
    # A form side by side counts the cameras of each forward, which a trace into it would fix once and for all.
    forms = {type(module) for module in network.modules() if form_of(module)}
    try:
        calls = calls_of(network, (Side, *forms))
    except FactorError as error:
        return str(error)
    if [node.op for node in calls].count("placeholder") != 1:
        return "it has more inputs than one"
    place, why = _cut(calls, network)
    layers = [str(node.target) for node in calls[: place + 1] if node.op == "call_module"]
    if not any(list(network.get_submodule(name).parameters()) for name in layers):
        return f"{why}, and no layer with weights comes before"
    before, after = calls[1 : place + 1], calls[place + 1 :]
    return Split(Program(network, calls[0], before), Program(network, calls[place], after), layers[-1])


def _cut(calls: Sequence[fx.Node], network: nn.Module) -> tuple[int, str]:
    """The place of the prefix's last call, and why it is not longer."""
    places = {node: place for place, node in enumerate(calls)}
    cut, why, furthest = 0, "", 0  # furthest: where what came before `place` is read last
    for place, node in enumerate(calls):
        if why := _why_touched(node, network):
            break
        if furthest <= place:
            cut = place
        furthest = max(furthest, *(places[user] for user in node.users), place)
    return cut, why


def _why_touched(node: fx.Node, network: nn.Module) -> str:
    """Why a call may give another answer at another step; "" where it gives the same."""
    if node.op == "placeholder":
        return ""
    if node.op == "get_attr":
        found = operator.attrgetter(str(node.target))(network)
        return f"{node.target} is trained" if isinstance(found, Tensor) and found.requires_grad else ""
    if node.op == "call_module":
        return next(_why_layer(str(node.target), network.get_submodule(str(node.target))), "")
    known = node.target in _METHODS if node.op == "call_method" else node.target in _FUNCTIONS or _passes(node)
    return "" if known else f"what {node.name} does is not known"


def _passes(node: fx.Node) -> bool:
    """Whether this is torchvision's stochastic depth, which is one call to torch.fx, and is off."""
    home, name = (getattr(node.target, key, "") for key in ("__module__", "__name__"))
    return (home, name) == ("torchvision.ops.stochastic_depth", "stochastic_depth") and node.args[-1] is False


def _why_layer(name: str, layer: nn.Module) -> Iterator[str]:
    if any(p.requires_grad for p in layer.parameters()):
        yield f"{name} is trained"
    for module in layer.modules():
        if type(module).__module__.partition(".")[0] not in _HOMES:
            yield f"what {name} does, a {type(module).__name__}, is not known"
        if isinstance(module, _NormBase | SideBatchNorm) and (module.training or not dict(module.named_buffers())):
            yield f"{name} takes its statistics from each batch"
        if draws(module) and module.training:
            yield f"{name} draws"
