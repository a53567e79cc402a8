"""A batch norm that is fixed for a turn, as part of its convolution. Knows pairs of layers; not steps or data.

In eval mode a batch norm is y * gain + shift per channel. Behind a convolution that is the same convolution with its
weight and bias scaled: no pass over the activations is left of it, forward or backward, and none is needed for the
gradient of a shift that is not trained. Equal to rounding; under bf16 autocast it is the scaled weight and the shift
that are rounded, instead of the norm's input.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fed_lorac.adapters.branched import BranchConv2d
from fed_lorac.adapters.fold_bn import foldable
from fed_lorac.adapters.layers import LoraConv2d, scaled
from fed_lorac.cohort.layers import SideBatchNorm, SideConv2d, affine_of
from fed_lorac.errors import FactorError

__all__ = ["fixed_norms_folded"]

Affine = Callable[[], tuple[Tensor, Tensor]]
_ADAPTED = (LoraConv2d, BranchConv2d)
_traced: dict[Hashable, tuple[tuple[str, str], ...]] = {}


@contextmanager
def fixed_norms_folded(network: nn.Module, like: nn.Module) -> Iterator[None]:
    """While open, every batch norm of `network` in eval mode that directly follows a convolution is part of that.

    `like` is a plain network of the same layout: `network` itself, or one of those side by side in it.
    """
    changed = []
    try:
        for conv_name, norm_name in _pairs(like):
            conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
            if not norm.training and isinstance(norm, nn.BatchNorm2d | SideBatchNorm):
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
    if isinstance(conv, (*_ADAPTED, SideConv2d)):
        return lambda x: conv.convolve(x, affine())
    assert isinstance(conv, nn.Conv2d)
    return lambda x: conv._conv_forward(x, *scaled(conv.weight, conv.bias, affine()))


def _affine(norm: nn.Module) -> Affine:
    if isinstance(norm, SideBatchNorm):
        return norm.affine
    assert isinstance(norm, nn.BatchNorm2d)
    own = {**dict(norm.named_parameters()), **dict(norm.named_buffers())}
    if any(tensor.requires_grad for tensor in own.values()):
        return lambda: affine_of(norm, own)
    fixed = affine_of(norm, own)
    return lambda: fixed


def _pairs(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """The pairs by dataflow; none where the network cannot be traced. Once for each layout."""
    if all(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        return ()
    key = tuple((name, type(module), *_settings(module)) for name, module in model.named_modules())
    if key not in _traced:
        try:
            adapted = {type(module) for module in model.modules() if isinstance(module, _ADAPTED)}
            _traced[key] = tuple(foldable(model, {nn.Conv2d, *adapted}))
        except FactorError:
            _traced[key] = ()
    return _traced[key]


def _settings(module: nn.Module) -> Iterator[Hashable]:
    for name, value in vars(module).items():
        if isinstance(value, bool | int | str):
            yield name, value
