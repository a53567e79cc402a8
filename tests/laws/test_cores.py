"""Laws of lora-xs, vera-b and subspace: published counts, bases that are the same at both ends, learning rates."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from named_adapters import named_adapter
from scipy.linalg import hadamard
from torch import Tensor, nn

from fed_lorac.adapters.adapter import trainable_parameters
from fed_lorac.adapters.algebra.subspace import draw_signs, spread, walsh_hadamard
from fed_lorac.adapters.bases import singular_bases
from fed_lorac.adapters.branches import adapted_layers
from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.lora_xs import LoraXs
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.adapters.subspace import Subspace
from fed_lorac.errors import FactorError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream
from fed_lorac.testing import check_adapter
from fed_lorac.wire.frame import payload_bytes

ALONE: dict[str, Any] = {"train_first_conv": False, "train_classifier": False}
METHODS = ("lora-xs", "vera-b", "subspace")


def network(**settings: Any) -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model"), **settings).eval()


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch_stream(seed, "weight"), dtype=torch.float64)


# --- counts


@pytest.mark.parametrize(
    ("method", "how", "on_resnet20", "on_resnet18"),
    [
        ("lora-xs", {"rank": 4, "bases": "drawn"}, 288, 304),
        ("lora-xs", {"rank": 8, "bases": "drawn"}, 1_152, 1_216),
        ("lora-xs", {"rank": 16, "bases": "drawn"}, 4_608, 4_864),
        ("vera-b", {}, 2_016, 12_416),
        ("subspace", {"dimension": 64}, 64, 64),
        ("subspace", {"dimension": 4_096}, 4_096, 4_096),
    ],
)
def test_a_network_has_as_many_numbers_as_the_method_says(
    method: str, how: dict[str, Any], on_resnet20: int, on_resnet18: int
) -> None:
    """ResNet-20 with shortcuts that have no weights, as in its paper; beside the ends, 1,072 and 6,848."""
    for model, expected, ends in (
        (build("resnet20", shortcut="identity"), on_resnet20, 1_072),
        (build("resnet18"), on_resnet18, 6_848),
    ):
        for beside in (True, False):
            own = {} if beside else ALONE
            adapter = named_adapter(method, **how, **own)
            adapter.attach(model, torch_stream(0, "adapter"))
            assert trainable_parameters(model) == expected + ends * beside
            adapter.detach(model)


def test_bases_change_no_count() -> None:
    for bases in ("weight", "drawn"):
        model = build("resnet20", shortcut="identity")
        LoraXs(rank=8, bases=bases, **ALONE).attach(model, torch_stream(0, "adapter"))
        assert trainable_parameters(model) == 1_152


@pytest.mark.parametrize("rank", [1, 5, 100])
def test_a_core_is_no_larger_than_its_view(rank: int) -> None:
    model = network()
    adapter = LoraXs(rank=rank, **ALONE)
    adapter.attach(model, torch_stream(0, "adapter"))
    views = [(m.out_channels * m.kernel_size[0], m.in_channels * m.kernel_size[1]) for m in convolutions(model)[1:]]
    assert [tuple(t.shape) for t in adapter.read(model).values()] == sorted_by_name(model, views, rank)
    check_adapter(adapter, network())


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def sorted_by_name(model: nn.Module, views: list[tuple[int, int]], rank: int) -> list[tuple[int, int]]:
    sides = dict(zip(adapted_layers(model), (min(rank, *view) for view in views), strict=True))
    return [(sides[name],) * 2 for name in sorted(sides)]


# --- bases


@given(st.integers(0, 99), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 8))
@settings(deadline=None)
def test_bases_are_orthonormal_and_as_many_as_fit(seed: int, out: int, in_: int, k: int, rank: int) -> None:
    U, V = singular_bases(drawn(seed, out, in_, k, k), rank, torch_stream(0, "a"))
    u = min(rank, out * k, in_ * k)
    assert U.shape == (out * k, u) and V.shape == (u, in_ * k)
    assert (U.T @ U - torch.eye(u)).abs().max() < 1e-6 and (V @ V.T - torch.eye(u)).abs().max() < 1e-6


def test_bases_span_the_leading_singular_vectors() -> None:
    """The other route: NumPy's SVD, of a weight whose fifth singular value is a fifth of its fourth."""
    left, right = (np.linalg.qr(drawn(seed, n, n).numpy())[0] for seed, n in ((1, 24), (2, 18)))
    values = np.array([10, 9, 8, 7, *np.linspace(1.4, 0.1, 14)])
    weight = torch.from_numpy(left[:, :18] * values @ right.T).reshape(8, 6, 3, 3)
    U, V = singular_bases(weight, 4, torch_stream(0, "a"))
    u, _, vh = np.linalg.svd(weight.reshape(24, 18).numpy())
    assert np.abs(U.double().numpy() @ U.double().numpy().T - u[:, :4] @ u[:, :4].T).max() < 1e-6
    assert np.abs(V.double().numpy().T @ V.double().numpy() - vh[:4].T @ vh[:4]).max() < 1e-6


@pytest.mark.parametrize(
    "weight",
    [torch.zeros(6, 6, 3, 3), torch.eye(18).reshape(6, 6, 3, 3), drawn(0, 18, 2) @ drawn(1, 2, 18)],
    ids=["zero", "all singular values tie", "of rank 2"],
)
def test_bases_do_not_hang_on_rounding_where_an_svd_does(weight: Tensor) -> None:
    """Another CPU is stood for by rounding errors of its size."""
    weight = weight.reshape(6, 6, 3, 3).double()
    other = weight * (1 + 1e-15 * drawn(3, 6, 6, 3, 3)) + 1e-16 * weight.norm() * drawn(4, 6, 6, 3, 3)
    one, two = (singular_bases(w, 4, torch_stream(0, "a")) for w in (weight, other))
    assert (one.U - two.U).abs().max() < 1e-5 and (one.V - two.V).abs().max() < 1e-5


def test_bases_are_of_the_base_whatever_the_weights_of_the_round() -> None:
    base = network()
    adapter = LoraXs(rank=3).fit_to(base)
    model = network()
    adapter.attach(model, torch_stream(0, "adapter"))
    moved = {name: p.detach() + 0.5 for name, p in base.named_parameters()}
    adapter.restart(model, moved, torch_stream(5, "adapter"))
    for name, layer in adapted_layers(model).items():
        own = singular_bases(base.get_parameter(f"{name}.weight"), 3, torch_stream(0, "lora-xs", name))
        assert torch.equal(layer.get_buffer("U"), own.U) and torch.equal(layer.get_buffer("V"), own.V)


def test_a_core_fitted_to_one_network_is_refused_by_another() -> None:
    fitted = LoraXs().fit_to(network())
    with pytest.raises(FactorError, match=r"none of 'layer1\.0\.conv1' with a view of 48 x 48"):
        fitted.attach(build("resnet8"), torch_stream(0, "adapter"))


def test_a_rotating_basis_makes_a_core_draw_its_bases() -> None:
    assert LoraXs(rank=3, lr_scale=2.0).fit_to(network()).with_frozen_basis() == LoraXs(
        rank=3, lr_scale=2.0, bases="drawn"
    )


# --- the subspace


@given(st.integers(0, 9), st.integers(0, 99))
def test_the_transform_is_hadamards(log: int, seed: int) -> None:
    x = drawn(seed, 3, 1 << log)
    expected = x.numpy() @ hadamard(1 << log)
    assert np.allclose(walsh_hadamard(x).numpy(), expected, atol=1e-10)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99))
def test_columns_of_a_subspace_are_orthonormal_over_whole_blocks(d: int, blocks: int, seed: int) -> None:
    n = blocks << (d - 1).bit_length()
    left, right = (signs.double() for signs in draw_signs(n, d, torch_stream(seed, "P")))
    P = spread(torch.eye(d, dtype=torch.float64), left, right, n).T
    assert torch.allclose(P.T @ P, torch.eye(d, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(P.abs(), torch.full_like(P, n**-0.5), atol=1e-12)


@pytest.mark.parametrize("inside", [False, True])
def test_one_vector_moves_every_layer_of_a_subspace(inside: bool) -> None:
    """The other route: P built whole, of SciPy's Hadamard matrices, over the layers in the network's order."""
    model, own = network().double(), {} if inside else ALONE
    adapter = Subspace(dimension=16, ends_inside=inside, lr_scale=4.0, **own)
    adapter.attach(model, torch_stream(3, "adapter"))
    [(name, z)] = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    z.data = drawn(0, 16)
    state = adapter.read(model)
    assert list(state) == [name] and adapter.formula == ("d" if inside else "d + ends")
    deltas, draw = adapter.delta(model), torch_stream(3, "adapter")
    weights = {n: p for n, p in network().named_parameters() if p.ndim > 1}
    if not inside:
        del weights["conv1.weight"], weights["fc.weight"]
    blocks = []
    for weight in weights.values():
        signs = [2.0 * torch.randint(0, 2, (-(-weight.numel() // 16), 16), generator=draw).numpy() - 1 for _ in "lr"]
        blocks.append(np.concatenate([np.diag(a) @ hadamard(16) @ np.diag(b) for a, b in zip(*signs, strict=True)]))
        blocks[-1] = blocks[-1][: weight.numel()]
    P = np.concatenate(blocks) / np.sqrt(sum(map(len, blocks)))
    assert np.allclose(np.linalg.norm(P, axis=0), 1)
    assert list(deltas) == list(weights)
    found = torch.cat([deltas[n].flatten() for n in weights]).numpy()
    assert np.abs(found - 2 * P @ z.detach().numpy()).max() < 1e-6 * np.abs(found).max()
    check_adapter(adapter, network())


def test_a_subspace_is_one_tensor_with_one_grid() -> None:
    for codec, payload in (("int8", 4 + 256), ("int4", 4 + 128), ("fp32", 1_024)):
        assert payload_bytes(state_of(Subspace(**ALONE)), codec) == payload


def state_of(adapter: ConvAdapter) -> dict[str, Tensor]:
    model = network()
    adapter.attach(model, torch_stream(0, "adapter"))
    return adapter.read(model)


def test_a_subspace_is_no_larger_than_the_space() -> None:
    for d in (287, 288, 289):
        [z] = state_of(Subspace(dimension=d, layers="layer1.0.*", **ALONE)).values()
        assert z.shape == (min(d, 288),)


# --- beside norm layers


@pytest.mark.parametrize("method", METHODS)
def test_a_small_adapter_beside_norm_layers_keeps_the_laws(method: str) -> None:
    adapter = Parts((NormAffine(**ALONE), cast(ConvAdapter, named_adapter(method, **ALONE))), (1.0, 0.5))
    assert adapter.linear
    check_adapter(adapter, network())


# --- learning rates


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0.25, 9.0])
def test_lr_scale_is_a_learning_rate(method: str, scale: float) -> None:
    """Plain gradient steps at scale * lr without it are those at lr with it."""
    x = torch.randn(4, 3, 16, 16, generator=torch_stream(0, "x"), dtype=torch.float64)
    outputs = []
    for lr, own in ((0.003 * scale, {"lr_scale": 1.0}), (0.003, {"lr_scale": scale})):
        model = network().double()
        named_adapter(method, **ALONE, **own).attach(model, torch_stream(0, "adapter"))
        trained = [p for p in model.parameters() if p.requires_grad]
        for _ in range(3):
            loss = model(x).square().sum()
            for p, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
                p.data -= lr * gradient
        outputs.append(model(x))
    assert (outputs[0] - network().double()(x)).abs().max() > 1e-4
    assert torch.allclose(outputs[0], outputs[1], atol=1e-9)
