"""Laws of strided 1x1 convolutions: gradients are right and no path of oneDNN that writes too far is taken."""

import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from small_runs import ROOT, environment
from torch import Tensor, nn

from fed_lorac.adapters.strided import StridedConv2d, strides_unfolded, unstrided

CONVOLUTION = r"convolution,[^,]*,backward_weights,src:b?f(?:32|16).*"
SHAPE = r",mb\d+_ic(?:\d|1[0-5])oc\d+_ih\d+oh\d+kh1sh[2-9]"  # one group; fewer than 16 channels; 1x1, strided
AT_FAULT = re.compile(CONVOLUTION + SHAPE)


def images(channels: int = 4, side: int = 16) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(6, channels, side, side, generator=draw).to(memory_format=torch.channels_last)


def gradients(conv: nn.Conv2d, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    y = conv(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad(y, [x, *conv.parameters()], weights)]


@pytest.mark.parametrize(("stride", "bias"), [(2, True), ((1, 4), False), ((2, 4), True)])
@pytest.mark.parametrize("own", [True, False])
def test_a_strided_1x1_convolution_has_the_gradients_of_its_sums(
    stride: int | tuple[int, int], bias: bool, own: bool
) -> None:
    """The other route is float64, in which oneDNN has no part."""
    torch.manual_seed(1)
    conv = (StridedConv2d if own else nn.Conv2d)(4, 10, 1, stride, bias=bias)
    exact = nn.Conv2d(4, 10, 1, stride, bias=bias).double()
    exact.load_state_dict(conv.state_dict())
    with strides_unfolded(conv):
        found = gradients(conv, images())
    for a, b in zip(found, gradients(exact, images().double()), strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-4, rtol=1e-4)


def test_the_pixels_are_those_that_the_kernel_looks_at() -> None:
    x, weight = images(), torch.randn(8, 4, 1, 1, requires_grad=True)
    pixels, stride = unstrided(x, weight, (2, 4), (0, 0))
    assert (pixels.shape, stride) == ((6, 4, 8, 4), (1, 1))
    exact = F.conv2d(x.double(), weight.double(), None, (2, 4))
    torch.testing.assert_close(F.conv2d(pixels, weight, None, stride).double(), exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "weight", "stride", "padding", "groups"),
    [
        (images(16), torch.randn(8, 16, 1, 1), (2, 2), (0, 0), 1),
        (images(), torch.randn(8, 4, 1, 1), (1, 1), (0, 0), 1),
        (images(), torch.randn(8, 4, 3, 3), (2, 2), (0, 0), 1),
        (images(), torch.randn(8, 4, 1, 1), (2, 2), (1, 1), 1),
        (images(), torch.randn(8, 2, 1, 1), (2, 2), (0, 0), 2),
        (images(side=15), torch.randn(8, 4, 1, 1), (2, 2), (0, 0), 1),
        (images().double(), torch.randn(8, 4, 1, 1).double(), (2, 2), (0, 0), 1),
    ],
    ids=["full block", "no stride", "3x3", "padded", "grouped", "odd side", "float64"],
)
def test_every_other_convolution_is_left_as_it_is(
    x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], groups: int
) -> None:
    same, as_it_was = unstrided(x, weight.requires_grad_(), stride, padding, groups)
    assert same is x and as_it_was == stride


def test_nothing_is_done_where_no_gradient_of_the_weight_is_formed() -> None:
    x, weight = images(), torch.randn(8, 4, 1, 1)
    assert unstrided(x, weight, (2, 2), (0, 0))[0] is x
    weight.requires_grad_()
    assert unstrided(x, weight, (2, 2), "valid")[0] is not x
    with torch.no_grad():
        assert unstrided(x, weight, (2, 2), (0, 0))[0] is x


def test_a_network_is_left_as_it_came() -> None:
    conv = nn.Conv2d(4, 8, 1, 2)
    before = dict(vars(conv))
    with pytest.raises(ValueError, match="a step fails"), strides_unfolded(conv):
        assert vars(conv).keys() > before.keys()
        raise ValueError("a step fails")
    assert vars(conv) == before


def test_a_convolution_with_a_way_of_its_own_keeps_it() -> None:
    conv = nn.Conv2d(4, 8, 1, 2)
    conv._conv_forward = lambda x, weight, bias: x  # type: ignore[method-assign, assignment]
    before = dict(vars(conv))
    with strides_unfolded(conv):
        assert vars(conv) == before
    assert vars(conv) == before


@pytest.mark.parametrize("instructions", [pytest.param(None, marks=pytest.mark.slow), "AVX2"])
def test_training_takes_no_path_that_writes_too_far(instructions: str | None) -> None:
    """Every layer, alone and side by side; oneDNN says which primitives it ran. Without the guard some runs crash."""
    forced = {} if instructions is None else {"ONEDNN_MAX_CPU_ISA": instructions, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/helpers/every_route.py")],
        env=environment(ONEDNN_VERBOSE="1", **forced),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ran = [line for line in done.stdout.splitlines() if ",convolution," in line and ",backward_weights," in line]
    assert len(ran) > 100
    assert not [line for line in ran if AT_FAULT.search(line)]
