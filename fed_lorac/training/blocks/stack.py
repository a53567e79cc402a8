"""N networks of one architecture as one network. Knows modules, their tensors and a cameras' axis; not steps or data.

The containers of the network (blocks, sequences) are copied and run as they are, on (B, N*C, H, W); its layers are put
side by side (`layers`); what has no parameters and acts on each element or channel passes. Only kinds named here are
let in: another's forward could mix channels, hence cameras, unseen.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fed_lorac.adapters.adapting import RATES, AdaptsToBatch
from fed_lorac.adapters.plain import altered, ties
from fed_lorac.errors import RunError
from fed_lorac.models.cifar_resnet import Block, CifarResNet
from fed_lorac.training.blocks.adapting import side_by_side
from fed_lorac.training.blocks.families import contains, form_of, passes, side_of
from fed_lorac.training.blocks.layers import Side

__all__ = ["Alone", "Stack", "check_equal", "draws", "row_norms", "still", "why_apart"]

_CONTAINERS = (nn.Sequential, CifarResNet, Block)
_ELEMENTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
)
_CHANNELWISE = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)

_DRAWING = ("StochasticDepth", "DropPath", "DropBlock2d")  # torchvision's and timm's, which take a second to import


def draws(module: nn.Module) -> bool:
    """Whether a module of this kind draws random numbers in training mode."""
    return isinstance(module, _DropoutNd | nn.RReLU) or type(module).__name__ in _DRAWING


@contextmanager
def still(models: Sequence[nn.Module]) -> Iterator[None]:
    """While open, all that draws is in eval mode; then each has its own mode again.

    Dropout, stochastic depth and their like draw from PyTorch's one global generator: a camera's result would hang on
    all that drew before it, on the number of workers and on which cameras train side by side (decision 7).
    """
    on = [module for model in models for module in model.modules() if module.training and draws(module)]
    for module in on:
        module.eval()
    try:
        yield
    finally:
        for module in on:
            module.train()


def why_apart(model: nn.Module) -> str:
    """Why networks like this one cannot be stacked, naming the first layer at fault; "" where they can."""
    for name, module in _parts(model):
        if not _passes(module) and _side_of(module) is None:
            return f"no side-by-side form is known for {name or 'the network'}, a {type(module).__name__}"
    for name, module in model.named_modules():
        if how := altered(module):
            return f"{name or 'the network'}, a {type(module).__name__}, {how}, which side by side is lost"
    tied = ties(model)
    return f"{tied[0][0]} and {tied[0][1]} are tied" if tied else ""


def _passes(module: nn.Module) -> bool:
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    return type(module) in (*_ELEMENTWISE, *_CHANNELWISE) or draws(module) or passes(module)


def check_equal(models: Sequence[nn.Module]) -> None:
    """RunError unless all have the first one's layers, settings, modes, shapes and trainable parameters."""
    first = _likeness(models[0]) if len(models) > 1 else []
    for place, model in enumerate(models[1:], 1):
        odd = next((a or b for a, b in _pairs(first, _likeness(model)) if a != b), None)
        if odd:
            raise RunError(
                "Networks that train side by side are of one architecture, in one mode, with the same parameters "
                f"trained; number {place} differs from the first at {odd[0] or 'its top'!r}. Train it in a block of "
                "its own."
            )


def row_norms(tensors: Sequence[Tensor]) -> Tensor:
    """Each row's Euclidean norm, (N,), of tensors (N, ...) taken together."""
    each = [torch.linalg.vector_norm(t, dim=tuple(range(1, t.ndim))) if t.ndim > 1 else t.abs() for t in tensors]
    found: Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
    return found


class Alone:
    """A block of one: the network itself, seen as the only row of a stack."""

    def __init__(self, model: nn.Module) -> None:
        self.network = model
        self._trained = [p for p in model.parameters() if p.requires_grad]

    def trained(self) -> list[tuple[Tensor, Tensor | None]]:
        """Every trained tensor and its gradient, (1, ...), in the network's order."""
        return [(p.data[None], None if p.grad is None else p.grad[None]) for p in self._trained]

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """What is trained, in the network's order."""
        return self._trained

    def rows(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of the trained parameters' shapes as (1, ...)."""
        return [tensor[None] for tensor in tensors]

    def swap(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Let the network have these values, (1, ...), as its trained ones; what it had, for the way back."""
        before = [p.data[None] for p in self._trained]
        for p, row in zip(self._trained, rows, strict=True):
            p.data = row[0]
        return before

    def part(self, cameras: Sequence[int] | None) -> None:
        """There is one, and it takes part."""

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self._trained:
            p.grad = None

    def keep(self, places: Sequence[int]) -> None:
        """Whoever is kept is the one."""

    def leave(self, place: int) -> None:
        """It was trained in place."""


class Stack:
    """N >= 2 networks as one, `network`: (B, N*3, H, W) to (B, N*classes). The networks get their tensors on `leave`.

    Places are those in the present stack: `keep` numbers the remaining networks anew.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self._models = list(models)
        each = [dict(model.named_modules()) for model in models]
        self._sides: dict[str, Side] = {}
        memo: dict[int, Any] = {}
        for module in models[0].modules():  # notes that adapters pin to a network are not for the copy
            memo |= {id(note): note for key, note in vars(module).items() if key not in _OWN}
        for name, module in _parts(models[0]):
            if make := _side_of(module):
                side = self._sides[name] = make([modules[name] for modules in each])
                for inner in side.inner:
                    setattr(side, inner, copy.deepcopy(module.get_submodule(inner), memo))
            memo[id(module)] = self._sides.get(name, module)
        by_layer = {id(side.like[0]): side for side in self._sides.values()}
        for side in self._sides.values():
            side.lenders = tuple(by_layer[id(lender)] for lender in getattr(side.like[0], "lenders", ()))
        self.network: nn.Module = copy.deepcopy(models[0], memo)
        for module in self.network.modules():
            if form := form_of(module):
                module.__dict__["forward"] = partial(form, module)
        self._parameters = [p for p in self.network.parameters() if p.requires_grad]

    def trained(self) -> list[tuple[Tensor, Tensor | None]]:
        """Every trained tensor and its gradient, (N, ...), in the network's order."""
        return [(p.data, p.grad) for p in self._parameters]

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """What is trained, in the network's order."""
        return self._parameters

    def rows(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Tensors of the trained parameters' shapes, which are (N, ...) already."""
        return list(tensors)

    def swap(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Let the networks have these values, (N, ...), as their trained ones; what they had, for the way back."""
        before = [p.data for p in self._parameters]
        for p, row in zip(self._parameters, rows, strict=True):
            p.data = row
        return before

    def part(self, cameras: Sequence[int] | None) -> None:
        """Let the next forward be of these places only; None: of all."""
        device = self._parameters[0].device
        index = None if cameras is None else torch.tensor(cameras, device=device)
        for side in self._sides.values():
            side.part = index

    def clear(self) -> None:
        """Forget the gradients."""
        for p in self._parameters:
            p.grad = None

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the cameras at these places, in this order."""
        index = torch.tensor(places, device=self._parameters[0].device)
        for side in self._sides.values():
            side.keep(index)
        self._models = [self._models[place] for place in places]

    def leave(self, place: int) -> None:
        """Write what training made of the camera at `place` into its own network."""
        for name, side in self._sides.items():
            side.write_back(place, self._models[place].get_submodule(name))


_OWN = frozenset(vars(nn.Module()))


def _parts(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """What containers are made of, in their order; a container with parameters of its own counts as a layer, which
    comes after what is in it."""
    contained = _contains(model, type(model)) and not list(model.parameters(recurse=False))
    make = None if contained else _side_of(model)
    for child_name, child in model.named_children():
        if contained or child_name in getattr(make, "inner", ()):
            yield from _parts(child, f"{name}.{child_name}" if name else child_name)
    if not contained:
        yield name, model


def _contains(module: nn.Module, kind: type[nn.Module]) -> bool:
    return kind in _CONTAINERS or contains(module, kind)


def _side_of(part: nn.Module) -> Callable[[Sequence[nn.Module]], Side] | None:
    """What puts parts like this one side by side; None where nothing here can. What adapts to each batch is a container
    by its class of before, which has parameters of its own: the rates alone."""
    if not isinstance(part, AdaptsToBatch):
        return side_of(part)
    own = [name for name, _ in part.named_parameters(recurse=False)]
    return side_by_side(part) if own == [RATES] and _contains(part, part.unadapted) else None


def _likeness(model: nn.Module) -> list[tuple[object, ...]]:
    return [
        (
            name,
            type(m),
            m.training,
            m.extra_repr(),
            altered(m),
            *_own_parameters(m),
        )
        for name, m in model.named_modules()
    ]


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, torch.Size, bool]]:
    return ((name, p.shape, p.requires_grad) for name, p in module.named_parameters(recurse=False))


def _pairs(a: list[tuple[object, ...]], b: list[tuple[object, ...]]) -> Iterator[tuple[Any, Any]]:
    longest = max(len(a), len(b))
    padded = [rows + [()] * (longest - len(rows)) for rows in (a, b)]
    return zip(*padded, strict=True)
