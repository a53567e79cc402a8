"""Grouped, depthwise and oblong convolutions: every adapter changes them by its own formula, each by a second route."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from grouped import mobile
from hypothesis import given, settings
from hypothesis import strategies as st
from named_adapters import named_adapter
from scipy.linalg import hadamard
from torch import Tensor, nn

from fed_lorac.adapters.adapter import trainable_parameters
from fed_lorac.adapters.algebra.factors import delta, to_view, view_of
from fed_lorac.adapters.branches import AdaptedConv2d, inject
from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.targets import auto_rank_mode, classifier_of
from fed_lorac.aggregation.delta_sum import DeltaSum, compressed
from fed_lorac.errors import FactorError
from fed_lorac.seeds import torch_stream
from fed_lorac.testing import check_adapter

Own = dict[str, Tensor]


def made(method: str, **settings: Any) -> Any:
    """A `ConvAdapter`, or another adapter."""
    return named_adapter(method, **settings)


def lora_c(conv: nn.Conv2d, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """Group by group and run by run, as the view says it: row o*K_h + p of B @ A is run p of filter o."""
    _, in_, high, wide = conv.weight.shape
    found = []
    for part, rows in zip(x.chunk(conv.groups, 1), B.view(conv.groups, -1, high, len(A)), strict=True):
        y: Tensor | float = 0.0
        for p in range(high):
            inner = torch.zeros(len(A), in_ * high * wide, dtype=A.dtype)
            inner[:, p * in_ * wide : (p + 1) * in_ * wide] = A
            y = y + torch.einsum("bqhw,oq->bohw", like(conv, part, inner.view(-1, in_, high, wide)), rows[:, p])
        found.append(cast(Tensor, y))
    return torch.cat(found, 1)


def filters(conv: nn.Conv2d, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    """The same r filters look at every group; each filter of the weight takes its own sum of them."""
    extractor = A.view(-1, *conv.weight.shape[1:])
    parts = zip(x.chunk(conv.groups, 1), B.chunk(conv.groups), strict=True)
    return torch.cat([torch.einsum("bqhw,oq->bohw", like(conv, part, extractor), M) for part, M in parts], 1)


def kernel_wise(conv: nn.Conv2d, x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    kernels = torch.stack([torch.stack([b @ a for a, b in zip(*row, strict=True)]) for row in zip(A, B, strict=True)])
    parts = zip(x.chunk(conv.groups, 1), kernels.chunk(conv.groups), strict=True)
    return torch.cat([like(conv, part, kernel) for part, kernel in parts], 1)


def atoms(conv: nn.Conv2d, x: Tensor, own: Own) -> Tensor:
    """Every channel is convolved with the atoms, and alpha sums over channels and atoms."""
    found = []
    for part, alpha in zip(x.chunk(conv.groups, 1), own["alpha"].chunk(conv.groups), strict=True):
        seen = []
        for i in range(part.shape[1]):
            D = torch.einsum("mn,mnkl->mkl", own["alpha1"][i], own["D1"]) if "D1" in own else own["D"]
            seen.append(like(conv, part[:, i : i + 1], D[:, None]))
        found.append(torch.einsum("bimhw,oim->bohw", torch.stack(seen, 1), alpha))
    return torch.cat(found, 1)


def pointwise(conv: nn.Conv2d, x: Tensor, own: Own) -> Tensor:
    """kc channels out of a group by kc channels in are a kernel."""
    kc, alpha = own["Dc"].shape[-1], own["alpha"]
    kernels = torch.zeros_like(conv.weight)
    for o in range(kernels.shape[0]):
        for i in range(kernels.shape[1]):
            kernels[o, i, 0, 0] = alpha[o // kc, i // kc] @ own["Dc"][:, o % kc, i % kc]
    parts = zip(x.chunk(conv.groups, 1), kernels.chunk(conv.groups), strict=True)
    return torch.cat([like(conv, part, kernel) for part, kernel in parts], 1)


def in_subspace(conv: nn.Conv2d, x: Tensor, own: Own) -> Tensor:
    """P of SciPy's Hadamard matrices, built."""
    blocks, m = own["left"].shape
    H = torch.from_numpy(hadamard(m)).double()
    P = torch.cat([torch.diag(own["left"][c]) @ H @ torch.diag(own["right"][c]) for c in range(blocks)])
    n = conv.weight.numel()
    kernels = (P[:n, : len(own["z"])] @ own["z"] / math.sqrt(n)).view(conv.weight.shape)
    parts = zip(x.chunk(conv.groups, 1), kernels.chunk(conv.groups), strict=True)
    return torch.cat([like(conv, part, kernel) for part, kernel in parts], 1)


def dropping(conv: nn.Conv2d, x: Tensor, own: Own) -> Tensor:
    """What is added where weights are dropped more often than by a fifth, or less."""
    kernels = conv.weight / 0.8 * (0.2 - (0.2 + own["p"] / own["unit"]).clamp(0, 1))
    parts = zip(x.chunk(conv.groups, 1), kernels.chunk(conv.groups), strict=True)
    return torch.cat([like(conv, part, kernel) for part, kernel in parts], 1)


def like(conv: nn.Conv2d, x: Tensor, kernel: Tensor) -> Tensor:
    how: dict[str, Any] = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
    return F.conv2d(x, kernel, **how)


def either(conv: nn.Conv2d, x: Tensor, own: Own) -> Tensor:
    return pointwise(conv, x, own) if "Dc" in own else atoms(conv, x, own)


ROUTES: dict[str, tuple[Any, Callable[[nn.Conv2d, Tensor, Own], Tensor]]] = {
    "lora-c r": (made("lora-c", rank_mode="r"), lambda c, x, t: 2 * lora_c(c, x, t["A"], t["B"])),
    "lora-c r*k": (made("lora-c", rank_mode="r*k"), lambda c, x, t: 2 * lora_c(c, x, t["A"], t["B"])),
    "lora-c kernel-wise": (
        made("lora-c", kernel_wise=True),
        lambda c, x, t: 2 * kernel_wise(c, x, t["A"], t["B"]),
    ),
    "ffa-lora-c": (made("ffa-lora-c", rank_mode="r"), lambda c, x, t: 2 * lora_c(c, x, t["A"], t["B"])),
    "lorae": (made("lorae"), lambda c, x, t: filters(c, x, t["A"], t["B"])),
    "conv-lora": (made("conv-lora"), lambda c, x, t: 2 * filters(c, x, t["A"], t["B"])),
    "aad": (
        made("aad", rank_mode="r*k"),
        lambda c, x, t: 2 * (lora_c(c, x, t["R"], t["L0"]) + lora_c(c, x, t["R0"], t["L"])),
    ),
    "filter-atoms": (made("filter-atoms", atoms=6, kc=1), either),
    "filter-atoms m1": (made("filter-atoms", atoms=5, m1=3, kc=1), either),
    "lora-xs": (made("lora-xs", lr_scale=4.0), lambda c, x, t: 2 * lora_c(c, x, t["V"], t["U"] @ t["S"])),
    "lora-xs drawn": (made("lora-xs", bases="drawn"), lambda c, x, t: lora_c(c, x, t["V"], t["U"] @ t["S"])),
    "vera-b": (made("vera-b", inner=5), lambda c, x, t: lora_c(c, x, t["A0"], torch.diag(t["b"]) @ t["B0"])),
    "subspace": (made("subspace", dimension=7, lr_scale=1.0), in_subspace),
    "mask": (made("mask", dropped=0.2), dropping),
}  # type: ignore[assignment]


def adapted(adapter: ConvAdapter, conv: nn.Conv2d) -> AdaptedConv2d:
    """The convolution with a branch, whatever its size, that was moved."""
    model = nn.Sequential(nn.Conv2d(3, conv.in_channels, 1), conv, nn.Flatten(), nn.Linear(1, 1)).double()
    fitted = adapter.fit_to(model)
    inject(conv, fitted.layer, fitted.branch("1", conv, torch_stream(0, "A")))
    layer = cast(AdaptedConv2d, conv)
    with torch.no_grad():
        for name in layer.branch_trained:
            p = layer.get_parameter(name)
            p.add_(torch.randn(p.shape, generator=torch_stream(1, name), dtype=p.dtype))
    return layer


sides = st.integers(1, 4)


@pytest.mark.parametrize("method", ROUTES)
@settings(max_examples=25, deadline=None)
@given(
    groups=sides,
    out=st.integers(1, 3),
    in_=st.integers(1, 3),
    kernel=st.tuples(sides, sides),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_a_branch_of_any_convolution_is_what_its_formula_says(
    method: str, groups: int, out: int, in_: int, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> None:
    adapter, second = ROUTES[method]
    conv = nn.Conv2d(groups * in_, groups * out, kernel, stride, padding, dilation, groups).double()
    plain = copy.deepcopy(conv)
    layer = adapted(adapter, conv)
    x = torch.randn(2, groups * in_, 9, 10, generator=torch_stream(0, "x"), dtype=torch.float64)
    with torch.no_grad():
        assert (layer(x) - plain(x) - second(plain, x, layer.own())).abs().max() < 1e-10


@pytest.mark.parametrize("method", ["lora-c r", "lorae"])
def test_the_two_step_route_is_the_dense_one_in_a_grouped_convolution(method: str) -> None:
    made = [
        adapted(replace(ROUTES[method][0], route=route), nn.Conv2d(8, 12, (3, 2), groups=4))
        for route in ("two-step", "dense")
    ]
    made[1].weight, made[1].bias = made[0].weight, made[0].bias
    x = torch.randn(2, 8, 9, 10, generator=torch_stream(0, "x"), dtype=torch.float64)
    assert (made[0](x) - made[1](x)).abs().max() < 1e-10


SETTINGS = [("lora-c", {"rank": r, "rank_mode": mode}) for r, mode in ((1, "r"), (4, "r"), (2, "r*k"))] + [
    ("lora-c", {"kernel_wise": True}),
    ("ffa-lora-c", {"rank_mode": "r"}),
    ("lorae", {}),
    ("conv-lora", {"rank": 16}),
    ("aad", {}),
    ("filter-atoms", {}),
    ("filter-atoms", {"m1": 2, "kc": 2}),
    ("lora-xs", {"rank": 4}),
    ("vera-b", {}),
    ("subspace", {"dimension": 40}),
    ("mask", {}),
    ("norm-affine", {}),
    ("linear-probe", {}),
    ("full", {}),
]


@pytest.mark.parametrize(("method", "how"), SETTINGS, ids=str)
def test_every_adapter_keeps_its_laws_on_a_network_of_such_convolutions(method: str, how: dict[str, Any]) -> None:
    check_adapter(made(method, **how), mobile())


GROUPED = ("3", "8", "10", "12")


@pytest.mark.parametrize(
    "method", ["lora-c", "ffa-lora-c", "lorae", "conv-lora", "aad", "filter-atoms", "lora-xs", "vera-b", "mask"]
)
@pytest.mark.parametrize("rank", [1, 2, 4, 16])
def test_an_adapter_of_a_grouped_convolution_is_never_larger_than_its_weight(method: str, rank: int) -> None:
    model, adapter = mobile(), made(method, rank=rank, atoms=3 * rank, dimension=100 * rank)
    weights = {name: model.get_parameter(f"{name}.weight").numel() for name in GROUPED}
    adapter.attach(model, torch_stream(0, "A"))
    state = adapter.read(model)
    for name, most in weights.items():
        own = {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] == name}
        assert sum(tensor.numel() for tensor in own.values()) <= most
        assert (f"{name}.weight" in own) == (len(own) == 1 and f"{name}.weight" in own)
    assert trainable_parameters(model) == sum(tensor.numel() for tensor in state.values())


def test_a_depthwise_layer_is_trained_as_it_is_where_factors_would_be_no_smaller() -> None:
    model = mobile()
    assert made("lora-c", rank=1, rank_mode="r").fit_to(model).dense == ("8",)  # 3 x 1: of rank 1
    assert made("lora-c", rank=2, rank_mode="r").fit_to(model).dense == ("8",)
    assert made("lora-c", rank=3, rank_mode="r").fit_to(model).dense == ("3", "8")
    assert made("filter-atoms").fit_to(model).dense == ("3",)


def test_lower_ranks_made_of_a_fitted_adapter_train_the_same_layers_as_they_are() -> None:
    model = mobile()
    highest = made("lora-c", rank=4, rank_mode="r").fit_to(model)
    lower = replace(highest, rank=1)
    lower.attach(model, torch_stream(0, "A"))
    kinds = {key.rpartition(".")[2] for key in lower.read(model) if key.startswith(("3.", "8."))}
    assert kinds == {"weight"} and highest.dense == ("3", "8")


@pytest.mark.parametrize("shape", [(8, 1, 3, 3), (12, 2, 3, 5), (6, 4, 1, 7), (6, 3, 5, 1)])
def test_a_sum_is_truncated_in_the_weights_own_view(shape: tuple[int, ...]) -> None:
    change = torch.randn(shape, generator=torch_stream(0, "change"))
    rows, cols = view_of(shape)
    assert (rows, cols) == (shape[0] * shape[2], shape[1] * shape[3]) and rows * cols == math.prod(shape)
    down = compressed(DeltaSum(shape).add_dense(change, 1.0), "conv.weight", "svd", 1)
    u, s, vh = torch.linalg.svd(to_view(change).double(), full_matrices=False)
    nearest = (s[0] * u[:, :1] @ vh[:1]).reshape(shape)
    if "conv.weight" in down:  # a pair would be no smaller
        assert rows + cols >= rows * cols
    else:
        assert (delta(down["conv.A"], down["conv.B"], shape, 1.0).double() - nearest).abs().max() < 1e-5


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(8, 8, 3), nn.Conv1d(8, 8, 3), nn.Conv3d(8, 8, 3), nn.ConvTranspose2d(8, 8, 3, groups=2)],
)
def test_transposed_and_other_than_2d_convolutions_are_refused_by_name(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), layer, nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(FactorError, match=rf"layer '2' is a {type(layer).__name__}.*transposed, 1-D and 3-D"):
        made("lora-c").attach(model, torch_stream(0, "A"))


def test_a_grouped_1x1_convolution_is_regrouped_within_its_groups() -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 24, 1, groups=2), nn.Flatten(), nn.Linear(24, 2))
    with pytest.raises(FactorError, match=r"1 has 16 in and 12 out in each of 2 groups, and kc = 8"):
        made("filter-atoms", kc=8).fit_to(model)


def test_a_network_without_a_linear_layer_has_its_last_convolution_for_a_classifier() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    assert classifier_of(model) == "2"
    adapter = made("lora-c")
    adapter.attach(model, torch_stream(0, "A"))
    assert sorted(adapter.read(model)) == ["0.weight", "1.A", "1.B", "2.weight"]


@pytest.mark.slow
def test_inverted_bottlenecks_are_bottlenecks() -> None:
    import torchvision

    names: dict[str, str] = {"mobilenet_v2": "r", "mobilenet_v3_small": "r", "efficientnet_b0": "r"}
    names |= {"resnext50_32x4d": "r", "resnet18": "r*k", "vgg11_bn": "r*k", "convnext_tiny": "r*k"}
    with torch.device("meta"):
        found = {name: auto_rank_mode(getattr(torchvision.models, name)(weights=None)) for name in names}
    assert found == names
