"""Laws of a branch on a convolution whose class has a forward of its own: the delta goes through all that it does."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.std_conv import ScaledStdConv2d, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from fed_lorac.adapters.branches import adapted_layers
from fed_lorac.adapters.fold_bn import fixed_norms_folded
from fed_lorac.adapters.low_rank import LowRankAdapter
from fed_lorac.errors import FactorError
from fed_lorac.registry import ADAPTERS
from fed_lorac.runtime.settings import rules_of
from fed_lorac.seeds import torch_stream
from fed_lorac.training.blocks import why_apart


def padded(x: Tensor) -> Tensor:
    """TensorFlow's SAME of a 3x3 kernel and stride 2 on an even side: 0 before, 1 behind."""
    return F.pad(x, (0, 1, 0, 1))


def standardised(weight: Tensor, eps: float) -> Tensor:
    """Each output channel's weights less their mean, over their deviation."""
    each = weight.flatten(1)
    mean, var = each.mean(1, keepdim=True), each.var(1, unbiased=False, keepdim=True)
    return ((each - mean) / (var + eps).sqrt()).view_as(weight)


ROUTES: dict[type[nn.Conv2d], Callable[[Any, Tensor, Tensor], Tensor]] = {
    Conv2dSame: lambda c, x, w: F.conv2d(padded(x), w, c.bias, 2),
    StdConv2d: lambda c, x, w: F.conv2d(x, standardised(w, c.eps), c.bias, 2, 1),
    StdConv2dSame: lambda c, x, w: F.conv2d(padded(x), standardised(w, c.eps), c.bias, 2),
}
"""A class -> what it computes of images of an even side with a weight, written out."""
METHODS = [name for name in ADAPTERS.names if issubclass(ADAPTERS.load(name), LowRankAdapter)]


def network(kind: type[nn.Conv2d]) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), kind(8, 12, 3, 2), nn.BatchNorm2d(12), nn.Flatten(), nn.Linear(12 * 16, 4)
    ).double()


def attached(kind: type[nn.Conv2d], method: str) -> tuple[Any, nn.Sequential]:
    """The method's adapter, and a network that has it, its branches anywhere."""
    made = ADAPTERS.load(method)
    adapter = made(**{"rank": 2} if "rank" in rules_of(made) else {})
    model = network(kind)
    adapter = adapter.fit_to(model)
    adapter.attach(model, torch_stream(0, "own forward"))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch_stream(1, str(p.shape)), dtype=p.dtype))
    return adapter, model


@pytest.mark.parametrize("kind", ROUTES)
@pytest.mark.parametrize("method", METHODS)
def test_the_delta_goes_through_the_padding_and_the_standardisation(method: str, kind: type[nn.Conv2d]) -> None:
    adapter, model = attached(kind, method)
    [layer] = adapted_layers(model).values()
    x = torch.randn(5, 8, 8, 8, dtype=torch.float64)
    wanted = ROUTES[kind](layer, x, layer.effective_weight(layer.own()))
    assert torch.allclose(layer(x), wanted, rtol=0, atol=1e-10)
    assert not torch.allclose(layer(x), ROUTES[kind](layer, x, layer.weight), atol=1e-3)
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    merged = adapter.merge(model.eval())
    assert type(merged[1]) is kind and torch.allclose(merged(images), model(images), rtol=0, atol=1e-10)
    layer(x).sum().backward()
    assert layer.weight.grad is None and any(p.grad is not None for p in layer.parameters())


@pytest.mark.parametrize("kind", ROUTES)
def test_a_convolution_is_what_it_was_when_the_adapter_is_off_and_trains_apart(kind: type[nn.Conv2d]) -> None:
    adapter, model = attached(kind, "lora-c")
    assert why_apart(model) and isinstance(copy.deepcopy(model)[1], kind)
    adapter.detach(model)
    images, plain = torch.randn(5, 3, 8, 8, dtype=torch.float64), network(kind)
    assert type(model[1]) is kind and torch.equal(model.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("kind", ROUTES)
def test_a_fixed_batch_norm_comes_after_all_that_the_forward_does(kind: type[nn.Conv2d]) -> None:
    _, model = attached(kind, "lora-c")
    for name, value in model[2].named_buffers():
        if name.startswith("running"):
            value.uniform_(0.5, 2)
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    wanted = model.eval()(images)
    with fixed_norms_folded(model, model):
        assert torch.allclose(model(images), wanted, rtol=0, atol=1e-10)


def test_what_takes_the_name_of_a_branchs_setting_is_refused_by_name() -> None:
    with pytest.raises(FactorError, match="layer '1' has an attribute 'scale' already"):
        ADAPTERS.load("lora-c")(rank=1).attach(network(ScaledStdConv2d), torch_stream(0, "scale"))


def test_a_class_with_a_conv_forward_of_its_own_is_refused_by_name() -> None:
    class Odd(nn.Conv2d):
        def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return F.conv2d(input, 2 * weight, bias)

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Odd(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(FactorError, match="layer '1' is a Odd"):
        ADAPTERS.load("lora-c")(rank=1).attach(model, torch_stream(0, "odd"))
