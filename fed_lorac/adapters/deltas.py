"""Deltas: what is added to a network's tensors, as a state says it. Knows states, names and shapes; not cameras.

A state is a flat dict. "<name>.A" beside "<name>.B" is a factor pair: the delta of "<name>.weight" is
`scale * reshape(B @ A)`. Any other key is the dense delta of the tensor of that very name, never scaled. THE way to
train parameters as they are stands here too (`train_dense`): the first convolution, the classifier, all of a network.
"""

from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import check_pair, delta, stack
from fed_lorac.adapters.plain import DENSE_NOTE, carrier
from fed_lorac.errors import FactorError

__all__ = [
    "State",
    "ToDelta",
    "apply_delta",
    "as_folded",
    "changed_names",
    "check_delta",
    "delta_like",
    "dense_delta",
    "fold",
    "initial_state",
    "is_delta_already",
    "is_variance",
    "join_deltas",
    "load_dense",
    "pair_of",
    "read_dense",
    "restart_dense",
    "set_tensors",
    "stop_dense",
    "train_dense",
]

_FLAGS = "_dense_flags"  # the attribute of a network with what was trained before `train_dense`

State = Mapping[str, Tensor]

ToDelta = Callable[[State], State]
"""A state -> the delta of the network's tensors that it stands for."""

T = TypeVar("T")


def is_delta_already(state: State) -> State:
    """The `ToDelta` of states that are deltas already."""
    return state


class _Network(Protocol):
    def state_dict(self) -> MutableMapping[str, Any]: ...


def changed_names(state: Mapping[str, object]) -> tuple[str, ...]:
    """Sorted names of the tensors that a state changes ("layer1.0.conv1.weight"); FactorError on half a pair."""
    targets = [_target(key, state) for key in state if not key.endswith(".B") or f"{key[:-2]}.A" not in state]
    if len(set(targets)) != len(targets):
        raise FactorError(f"A state changes each tensor once, by factors or dense; came the keys {sorted(state)}.")
    return tuple(sorted(targets))


def _target(key: str, state: Mapping[str, object]) -> str:
    stem, _, kind = key.rpartition(".")
    if kind not in ("A", "B") or not stem:
        return key
    if kind == "B" or f"{stem}.B" not in state:
        raise FactorError(f"Factors come in pairs, {stem}.A beside {stem}.B; came {key!r} alone. Was one left out?")
    return f"{stem}.weight"


def pair_of(state: Mapping[str, T], name: str) -> tuple[T, T] | None:
    """A and B of the tensor `name` ("conv1.weight"), or None where the state has no factors for it."""
    stem = name.removesuffix(".weight")
    return (state[f"{stem}.A"], state[f"{stem}.B"]) if stem != name and f"{stem}.A" in state else None


def check_delta(state: State, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise FactorError unless every delta in `state` fits a tensor in `shapes` (tensor name -> shape)."""
    for name in changed_names(state):
        if name not in shapes:
            raise FactorError(
                f"A state changes tensors that the network has; it has no {name!r}. Is it for another model?"
            )
        _check_one(state, name, shapes[name])


def _check_one(state: State, name: str, shape: Sequence[int]) -> None:
    pair = pair_of(state, name)
    if pair is not None:
        check_pair(*pair, shape, name)
    elif tuple(state[name].shape) != tuple(shape):
        raise FactorError(
            f"A dense delta has its tensor's shape, {tuple(shape)} for {name!r}; came {tuple(state[name].shape)}."
        )


def dense_delta(state: State, name: str, weight_shape: Sequence[int], scale: float) -> Tensor:
    """What `state` adds to the tensor `name` ("conv1.weight"), dense, of shape `weight_shape`.

    Factors are multiplied out with `scale`; a dense delta comes back as it is (the very tensor, not a copy).
    FactorError if the state has no delta of such a tensor, or does not fit it.
    """
    pair = pair_of(state, name)
    if pair is None and name not in state:
        raise FactorError(f"A delta was asked for {name!r}; the state changes {list(changed_names(state))}.")
    _check_one(state, name, weight_shape)
    return state[name] if pair is None else delta(*pair, weight_shape, scale)


def delta_like(weight: Tensor, delta: Tensor, layer: type[nn.Module]) -> Tensor:
    """What a layer of this class makes its weight's delta, in the weight's shape; FactorError where it does not fit."""
    if delta.numel() != weight.numel():
        raise FactorError(
            f"A delta has a number for each of its layer's weight, {tuple(weight.shape)}; {layer.__module__}."
            f"{layer.__qualname__}.delta gives {tuple(delta.shape)}. Fix it: see docs/extending.md."
        )
    return delta.reshape(weight.shape)


def join_deltas(first: State, second: State, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """One state that adds what both add, their scale in them: factors of one view side by side, else dense."""
    both = set(changed_names(first)) & set(changed_names(second))
    theirs = {key for name in both for key in (name, *(name.removesuffix("weight") + side for side in "AB"))}
    found = {key: tensor for state in (first, second) for key, tensor in state.items() if key not in theirs}
    for name in sorted(both):
        pairs = [pair for state in (first, second) if (pair := pair_of(state, name)) is not None]
        views = {(B.shape[0], A.shape[1]) if A.ndim == 2 else None for A, B in pairs}  # per kernel there is none
        if len(pairs) == 2 and len(views) == 1 and None not in views:
            stem = name.removesuffix(".weight")
            found[f"{stem}.A"], found[f"{stem}.B"] = stack(pairs, [1.0, 1.0])
        else:
            found[name] = torch.add(*(dense_delta(state, name, shapes[name], 1.0) for state in (first, second)))
    return found


@torch.no_grad()
def apply_delta(weights: MutableMapping[str, Tensor], state: State, scale: float, *, weight: float = 1.0) -> None:
    """Add `weight` times the state's deltas to `weights`, IN PLACE, one dense delta in memory at a time.

    `sum_k w_k delta_k` is a call a camera on one dict of zeros. All is checked before the first tensor moves.
    """
    check_delta(state, {name: tuple(tensor.shape) for name, tensor in weights.items()})
    for name in changed_names(state):
        if not weights[name].is_floating_point():
            raise FactorError(f"Deltas are added to floating-point tensors; {name!r} is {weights[name].dtype}.")
    for name in changed_names(state):
        target = weights[name]
        added = dense_delta(state, name, target.shape, scale)
        target.add_(added.to(device=target.device, dtype=target.dtype), alpha=weight)


def is_variance(name: str) -> bool:
    """Whether a tensor of this name is a batch norm's variance: where a delta is added to it, it is cut at zero, which
    a mean that a codec, a server optimizer or noise has moved may lead below."""
    return name.endswith("running_var")


@torch.no_grad()
def fold(target: _Network | MutableMapping[str, Tensor], state: State, scale: float = 1.0) -> None:
    """W <- W + D, IN PLACE, for a plain network or a dict of its tensors; a variance does not go below zero.

    A network that carries an adapter is refused: what it trained would count for part of the delta.
    """
    if isinstance(target, nn.Module) and (found := carrier(target)):
        raise FactorError(f"A delta is folded into a plain network; {found} carries an adapter. Detach it first.")
    weights = target if isinstance(target, MutableMapping) else target.state_dict()
    apply_delta(weights, state, scale)
    for name in filter(is_variance, changed_names(state)):
        weights[name].clamp_(min=0)


def as_folded(variances: MutableMapping[str, Tensor], delta: State) -> dict[str, Tensor]:
    """What of a delta counts where it is folded into a network of these variances, which move along, IN PLACE: of a
    variance no more than takes it to zero."""
    found = dict(delta)
    for name in filter(is_variance, delta):
        found[name] = torch.maximum(delta[name], -variances[name])
        variances[name] = variances[name] + found[name]
    return found


def set_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network's tensors of these names these values; others stay."""
    own = model.state_dict()
    own.update(tensors)  # in place: some networks load only what they have stamped themselves
    model.load_state_dict(own)


def initial_state(personal: State, fresh: State) -> dict[str, Tensor]:
    """A fresh adapter's state with personal parameters put in. Where their factors have fewer rows, the rest of A is as
    it was drawn, and the rest of B zero."""
    found = dict(fresh)
    for key, value in personal.items():
        rows = tuple(slice(size) for size in value.shape)
        found[key] = fresh[key].clone()
        found[key][rows] = value
    return found


# Parameters that are trained as they are: their dense deltas since `train_dense` are the state


def train_dense(model: nn.Module, names: Collection[str]) -> None:
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
    setattr(model, DENSE_NOTE, trained)


def restart_dense(model: nn.Module) -> None:
    """Deltas count from the present values."""
    before = _before(model)
    before |= {name: model.get_parameter(name).detach().clone() for name in before}


@torch.no_grad()
def stop_dense(model: nn.Module, *, keep: bool = False) -> None:
    """Back to the values, and which were trained, of before `train_dense`, in place; with `keep` the values stay."""
    before = _before(model)
    for name, value in before.items() if not keep else ():
        model.get_parameter(name).copy_(value).grad = None
    flags = getattr(model, _FLAGS)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    delattr(model, DENSE_NOTE)
    delattr(model, _FLAGS)


def read_dense(model: nn.Module) -> dict[str, Tensor]:
    """Name -> delta since `train_dense`: float32, contiguous, on the CPU, sorted by name."""
    pairs = {name: (model.get_parameter(name).detach(), before) for name, before in sorted(_before(model).items())}
    return {name: (now - before.to(now)).to("cpu", torch.float32).contiguous() for name, (now, before) in pairs.items()}


@torch.no_grad()
def load_dense(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set every trained parameter to its value at `train_dense` plus its delta; FactorError where names differ."""
    before = _before(model)
    if state.keys() != before.keys():
        odd = sorted(state.keys() ^ before.keys())[:3]
        raise FactorError(
            f"A state has every trained parameter, nothing else; differs in {odd}. Is it another method's, or model's?"
        )
    for name, value in before.items():
        model.get_parameter(name).copy_(value + state[name].to(value))


def _before(model: nn.Module) -> dict[str, Tensor]:
    if not hasattr(model, DENSE_NOTE):
        raise FactorError("A state counts from attach; this network carries no adapter. Attach one first.")
    before: dict[str, Tensor] = getattr(model, DENSE_NOTE)
    return before
