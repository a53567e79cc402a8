"""A batch norm that is fixed for a turn, as part of its convolution. Knows pairs of layers; not steps or data.

In eval mode a batch norm is y * gain + shift per channel. Behind a convolution that is the same convolution with its
weight and bias scaled: no pass over the activations is left of it, forward or backward, and none is needed for the
gradient of a shift that is not trained. Equal to rounding; under bf16 autocast it is the scaled weight and the shift
that are rounded, instead of the norm's input.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.adapters.conv_adapter import AdaptedConv2d, scaled
from fed_lorac.adapters.dataflow import Feed, feeds
from fed_lorac.adapters.fold_bn import affine_of, folding
from fed_lorac.adapters.plain import altered
from fed_lorac.errors import FactorError
from fed_lorac.training.blocks.layers import SideBatchNorm, SideConv2d

__all__ = ["fixed_norms_folded"]

Affine = Callable[[], tuple[Tensor, Tensor]]
_EVERY_MODULES = frozenset(vars(nn.Module()))
_traced: dict[Hashable, Mapping[str, Feed]] = {}


@contextmanager
def fixed_norms_folded(network: nn.Module, like: nn.Module) -> Iterator[None]:
    """While open, every batch norm of `network` in eval mode that directly follows a convolution is part of that.

    `like` is a plain network of the same layout: `network` itself, or one of those side by side in it.
    """
    changed = []
    try:
        for norm_name, conv_name in _pairs(like).items():
            conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
            conv.__dict__["forward"] = _forward(conv, _affine(norm))
            norm.__dict__["forward"] = _as_it_is
            changed += [conv, norm]
        yield
    finally:
        for module in changed:
            del module.__dict__["forward"]


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _forward(conv: nn.Module, affine: Affine) -> Callable[[Tensor], Tensor]:
    if isinstance(conv, AdaptedConv2d | SideConv2d):
        return lambda x: conv.convolve(x, affine())
    assert isinstance(conv, nn.Conv2d)
    return lambda x: conv._conv_forward(x, *scaled(conv.weight, conv.bias, affine()))


def _affine(norm: nn.Module) -> Affine:
    if isinstance(norm, SideBatchNorm):
        return norm.affine
    assert isinstance(norm, _BatchNorm)
    own = {**dict(norm.named_parameters()), **dict(norm.named_buffers())}
    if any(tensor.requires_grad for tensor in own.values()):
        return lambda: affine_of(norm, own)
    fixed = affine_of(norm, own)
    return lambda: fixed


def _pairs(model: nn.Module) -> Mapping[str, str]:
    """Batch norm in eval mode -> its convolution, by dataflow; none where the network cannot be traced."""
    if all(module.training for module in model.modules() if isinstance(module, _BatchNorm)):
        return {}
    adapted = {type(module) for module in model.modules() if isinstance(module, AdaptedConv2d)}
    return folding(model, _flow(model), {nn.Conv2d, *adapted}).folded


def _flow(model: nn.Module) -> Mapping[str, Feed]:
    """The dataflow; once for each layout, as tracing takes longer than a batch."""
    if any("forward" in vars(module) for module in model.modules()):
        return _followed(model)  # a layout does not say what it does
    key = tuple((name, type(m), m.training, altered(m), *_settings(m)) for name, m in model.named_modules())
    if key not in _traced:
        _traced[key] = _followed(model)
    return _traced[key]


def _followed(model: nn.Module) -> Mapping[str, Feed]:
    try:
        return feeds(model)
    except FactorError:
        return {}


def _settings(module: nn.Module) -> Iterator[Hashable]:
    yield from ((name, _told(value)) for name, value in vars(module).items() if name not in _EVERY_MODULES)


def _told(value: Any) -> Hashable:
    """A setting's value, as far as it is of plain words and numbers: a forward pass may turn on it."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, list | tuple):
        return tuple(_told(part) for part in value)
    if isinstance(value, dict):
        return tuple((str(key), _told(part)) for key, part in value.items())
    return cast(Hashable, type(value))
