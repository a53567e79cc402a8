"""Deltas: what is added to a network's tensors, as a state says it. Knows states, names and shapes; not cameras.

A state is a flat dict. "<name>.A" beside "<name>.B" is a factor pair: the delta of "<name>.weight" is
`scale * reshape(B @ A)`. Any other key is the dense delta of the tensor of that very name, never scaled.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.factors import check_pair, delta, stack
from fed_lorac.adapters.plain import carrier
from fed_lorac.errors import FactorError

__all__ = [
    "State",
    "ToDelta",
    "apply_delta",
    "changed_names",
    "check_delta",
    "dense_delta",
    "fold",
    "is_delta_already",
    "join_deltas",
    "pair_of",
]

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


def fold(target: _Network | MutableMapping[str, Tensor], state: State, scale: float = 1.0) -> None:
    """W <- W + D, IN PLACE, for a plain network or a dict of its tensors.

    A network that carries an adapter is refused: what it trained would count for part of the delta.
    """
    if isinstance(target, nn.Module) and (found := carrier(target)):
        raise FactorError(f"A delta is folded into a plain network; {found} carries an adapter. Detach it first.")
    weights = target if isinstance(target, MutableMapping) else target.state_dict()
    apply_delta(weights, state, scale)


def set_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network's tensors of these names these values; others stay."""
    own = model.state_dict()
    own.update(tensors)  # in place: some networks load only what they have stamped themselves
    model.load_state_dict(own)
