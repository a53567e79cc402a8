"""Laws of filter atoms: the best atoms, sparse codes, regrouped kernels, and changes that are linear in the atoms."""

import math
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from named_adapters import named_adapter
from sklearn.decomposition import sparse_encode
from torch import Tensor, nn

from fed_lorac.adapters.adapter import trainable_parameters
from fed_lorac.adapters.algebra import atoms
from fed_lorac.adapters.filter_atoms import AtomsConv2d, FilterAtoms
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream

SEEDS = st.integers(0, 10_000)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernels(seed: int = 0, k: int = 3) -> Tensor:
    """A weight (8, 6, k, k) with some structure: directions of unequal strength."""
    return draw(seed, 8, 6, k, k) * torch.linspace(0.1, 3.0, k * k, dtype=torch.float64).view(k, k)


def code_of(weight: Tensor, m: int, **how: int) -> atoms.Code:
    return atoms.decompose(weight, m, torch_stream(0, "atoms"), **how)


def network(width: int = 4) -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", width=width).eval()


def stepped(model: nn.Module, seed: int) -> nn.Module:
    """Everything that is trained, at random values."""
    draws = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=draws)
    return model


# --- the algebra


def test_the_delta_is_a_sum_over_atoms():
    alpha, D = draw(0, 4, 3, 5), draw(1, 5, 2, 2)
    by_hand = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    for o, i, j in product(range(4), range(3), range(5)):
        by_hand[o, i] += alpha[o, i, j] * D[j]
    assert torch.allclose(atoms.delta(alpha, D), by_hand, atol=1e-12)


def test_overcomplete_atoms_are_each_channels_own_sum_over_shared_ones():
    alpha, alpha1, D1 = draw(0, 4, 3, 5), draw(1, 3, 5, 2), draw(2, 5, 2, 3, 3)
    by_hand = torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    for o, i, j, n in product(range(4), range(3), range(5), range(2)):
        by_hand[o, i] += alpha[o, i, j] * alpha1[i, j, n] * D1[j, n]
    assert torch.allclose(atoms.delta_by_channel(alpha, alpha1, D1), by_hand, atol=1e-12)


def test_cameras_axes_in_front_are_cameras_apart():
    alpha, D = draw(0, 2, 4, 3, 5), draw(1, 2, 5, 3, 3)
    alpha1, D1 = draw(2, 2, 3, 5, 2), draw(3, 2, 5, 2, 3, 3)
    for k in range(2):
        assert torch.allclose(atoms.delta(alpha, D)[k], atoms.delta(alpha[k], D[k]), atol=1e-12)
        together = atoms.delta_by_channel(alpha, alpha1, D1)[k]
        alone = atoms.delta_by_channel(alpha[k], alpha1[k], D1[k])
        assert torch.allclose(together, alone, atol=1e-12)


@settings(deadline=None)
@given(SEEDS, st.integers(1, 9))
def test_no_atoms_leave_less_than_the_leading_singular_vectors(seed: int, m: int):
    """Against other atoms with their own best coefficients, and against the singular values that are dropped."""
    weight = kernels(seed)
    matrix, code = weight.view(-1, 9), code_of(weight, m)
    others, _ = torch.linalg.qr(draw(seed + 1, 9, m))
    assert code.missed <= float((matrix - matrix @ others @ others.T).norm()) + 1e-12
    dropped = torch.linalg.svdvals(matrix)[m:]
    assert code.missed == pytest.approx(float(dropped.norm()), abs=1e-10)
    assert code.error == pytest.approx(float((weight - atoms.delta(code.alpha, code.atoms)).norm() / weight.norm()))


@settings(deadline=None)
@given(SEEDS, st.integers(1, 9))
def test_atoms_are_orthonormal_and_their_signs_settled(seed: int, m: int):
    matrix = kernels(seed).view(-1, 9)
    found = atoms.leading_atoms(matrix, m)
    assert torch.allclose(found @ found.T, torch.eye(m, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found, atoms.leading_atoms(-matrix.flip(0), m), atol=1e-9)
    assert bool((found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all())


@pytest.mark.parametrize("m", [9, 10, 12, 20])
def test_from_k_times_k_atoms_on_nothing_is_missed(m: int):
    code = code_of(kernels(), m)
    assert code.error < 1e-12
    assert torch.allclose(atoms.delta(code.alpha, code.atoms), kernels(), atol=1e-10)
    assert torch.allclose(code.atoms.flatten(1).norm(dim=1), torch.ones(m, dtype=torch.float64))
    assert torch.equal(code.atoms[:9], code_of(kernels(), 9).atoms)


def test_fewer_kernels_than_atoms_are_no_hindrance():
    one = draw(0, 1, 2, 4, 4)
    assert code_of(one, 9).error < 1e-12
    assert code_of(torch.zeros_like(one), 9).error == 0.0
    assert code_of(one, 9).alpha.shape == (1, 2, 9)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 9))
def test_the_pursuit_is_scikit_learns(seed: int, nonzeros: int):
    code = code_of(kernels(seed), 12, nonzeros=nonzeros)
    matrix, dictionary = kernels(seed).view(-1, 9).numpy(), code.atoms.flatten(1).numpy()
    theirs = sparse_encode(matrix, dictionary, algorithm="omp", n_nonzero_coefs=nonzeros)
    np.testing.assert_allclose(code.alpha.view(-1, 12).numpy(), theirs, atol=1e-8)


def test_a_sparse_code_misses_less_the_more_nonzeros_it_has():
    weight = kernels()
    codes = [code_of(weight, 12, nonzeros=n) for n in range(1, 10)]
    left = [(weight - atoms.delta(code.alpha, code.atoms)).flatten(2).norm(dim=2) for code in codes]
    for n, (more, less) in enumerate(pairwise(left), 1):
        assert bool((less <= more + 1e-12).all())
        assert int((codes[n - 1].alpha != 0).sum(2).max()) <= n
    assert all(a.missed > b.missed for a, b in pairwise(codes))
    assert codes[-1].error < 1e-12


def test_atoms_that_add_nothing_get_nothing():
    """Twins and zero kernels: the least-squares problem has no single solution, and the code stays finite."""
    twins = torch.nn.functional.normalize(draw(0, 2, 9), dim=1).repeat(3, 1)
    matrix = torch.cat([draw(1, 4, 9), torch.zeros(1, 9, dtype=torch.float64), 2 * twins[:1]])
    code = atoms.sparse_code(matrix, twins, 5)
    best = matrix @ torch.linalg.pinv(twins) @ twins
    assert torch.allclose(code @ twins, best, atol=1e-10)
    assert float(code.abs().max()) < 100 and not code[4].any()
    with pytest.raises(FactorError, match="1 to 6 nonzeros"):
        atoms.sparse_code(matrix, twins, 7)


def test_atoms_that_are_nearly_one_still_reconstruct():
    alike = torch.nn.functional.normalize(draw(0, 1, 9) + 1e-4 * draw(1, 12, 9), dim=1)
    matrix = draw(2, 200, 9)
    assert torch.allclose(atoms.sparse_code(matrix, alike, 9) @ alike, matrix, atol=1e-8)


@given(st.integers(1, 3), st.integers(1, 4), st.sampled_from([1, 2, 4]), SEEDS)
def test_regrouping_loses_and_doubles_nothing(rows: int, cols: int, kc: int, seed: int):
    weight = draw(seed, rows * kc, cols * kc, 1, 1)
    grouped = atoms.to_kernels(weight, kc)
    assert grouped.shape == (rows, cols, kc, kc)
    assert torch.equal(atoms.from_kernels(grouped, weight.shape), weight)
    assert torch.equal(atoms.from_kernels(torch.stack([grouped, 2 * grouped]), weight.shape)[1], 2 * weight)
    for o, i in product(range(rows * kc), range(cols * kc)):
        assert grouped[o // kc, i // kc, o % kc, i % kc] == weight[o, i, 0, 0]


def test_a_kernel_of_its_own_is_not_regrouped():
    assert atoms.to_kernels(kernels(), 4) is not None and torch.equal(atoms.to_kernels(kernels(), 4), kernels())
    assert torch.equal(atoms.from_kernels(kernels(), (8, 6, 3, 3)), kernels())


# --- the adapter


def test_the_gradient_of_an_atom_is_the_weights_gradient_seen_through_alpha():
    model, adapter = network(), FilterAtoms(atoms=6, kc=4)
    adapter.attach(model, torch_stream(0, "A"))
    layer = model.get_submodule("layer2.0.conv1")
    assert isinstance(layer, AtomsConv2d)
    x = draw(3, 2, 4, 8, 8).float()
    layer(x).square().sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    nn.functional.conv2d(x, weight, None, layer.stride, layer.padding).square().sum().backward()
    expected = torch.einsum("oim,oikl->mkl", layer.get_buffer("alpha"), weight.grad)
    assert torch.allclose(layer.get_parameter("D").grad, expected, rtol=1e-4, atol=1e-4)


def test_states_are_named_and_shaped_as_the_papers_tensors():
    plain, over = (named_adapter("filter-atoms", atoms=6, m1=m1) for m1 in (0, 3))
    shapes = []
    for adapter in (plain, over):
        model = network()
        adapter.attach(model, torch_stream(0, "A"))
        shapes.append({name: tuple(t.shape) for name, t in adapter.read(model).items()})
    assert shapes[0]["layer2.0.conv1.D"] == (6, 3, 3)
    assert shapes[0]["layer2.0.downsample.0.Dc"] == shapes[1]["layer2.0.downsample.0.Dc"] == (6, 4, 4)
    assert shapes[1]["layer2.0.conv1.alpha1"] == (4, 6, 3)
    assert shapes[1]["layer2.0.conv1.D1"] == (6, 3, 3, 3)
    assert {"conv1.weight", "fc.weight"} == {name for name in shapes[0] if name.endswith("weight")}
    assert (plain.linear, over.linear) == (True, False)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(-2, 2), min_size=2, max_size=4), st.sampled_from([6, 9, 12]))
def test_the_delta_is_linear_in_the_state(weights: list[float], m: int):
    base, generator = network(), torch_stream(0, "A")
    adapter = FilterAtoms(atoms=m, kc=4).fit_to(base)
    states = []
    for k in range(len(weights)):
        model = network()
        adapter.attach(model, torch_stream(0, "A"))
        states.append(adapter.read(stepped(model, k)))
    expand = adapter.to_delta(base, generator)
    each = [(torch.tensor(w), state) for w, state in zip(weights, states, strict=True)]
    mixed = expand({name: torch.stack([w * state[name] for w, state in each]).sum(0) for name in states[0]})
    for name, change in mixed.items():
        apart = torch.stack([w * expand(state)[name] for w, state in each]).sum(0)
        assert torch.allclose(change, apart, atol=1e-5)
        assert change.dtype == torch.float32 and change.shape == base.get_parameter(name).shape


def test_the_overcomplete_delta_is_not():
    base, model = network(), network()
    adapter = FilterAtoms(atoms=9, kc=0, m1=3, train_first_conv=False, train_classifier=False).fit_to(base)
    adapter.attach(model, torch_stream(0, "A"))
    state = adapter.read(stepped(model, 0))
    expand = adapter.to_delta(base, torch_stream(0, "A"))
    once, twice = expand(state), expand({name: 2 * t for name, t in state.items()})
    assert all(torch.allclose(twice[name], 4 * once[name], atol=1e-5) for name in once)


@pytest.mark.parametrize("m1", [0, 3])
def test_alpha_is_of_the_starting_base_and_stays(m1: int):
    base = network()
    kind = FilterAtoms(atoms=12, kc=4, m1=m1)
    adapter, again = kind.fit_to(base), kind.fit_to(network())
    moved = network()
    with torch.no_grad():
        moved.get_parameter("layer1.0.conv1.weight").mul_(3.0)
    adapter.attach(moved, torch_stream(0, "A"))
    here = moved.get_submodule("layer1.0.conv1").get_buffer("alpha")
    assert again.codes is not None and torch.equal(here, again.codes["layer1.0.conv1"].alpha)
    state = adapter.read(stepped(moved, 1))
    one, other = (a.to_delta(base, torch_stream(0, "A"))(state) for a in (adapter, again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    drawn = [again.codes[f"layer1.0.conv{n}"].atoms[9:] for n in (1, 2)]
    assert not torch.equal(*drawn)
    assert adapter == again == kind  # codes are made of the base, not settings


def test_what_the_atoms_miss_is_no_error_of_the_network():
    x = draw(0, 2, 3, 16, 16).float()
    model, adapter = network(), FilterAtoms(atoms=2, kc=4)
    assert adapter.fit_to(model).reconstruction_error > 0.3
    adapter.attach(model, torch_stream(0, "A"))
    assert torch.allclose(model(x), network()(x), atol=1e-6)


def test_the_networks_reconstruction_error_is_that_of_all_kernels_as_one_vector():
    base = network()
    adapter = FilterAtoms(atoms=5, kc=4).fit_to(base)
    assert adapter.codes is not None
    both: list[Tensor] = []
    for name, code in adapter.codes.items():
        weight = base.get_parameter(f"{name}.weight").detach()
        both.append(
            torch.stack([weight, weight - atoms.from_kernels(atoms.delta(code.alpha, code.atoms), weight.shape)])
        )
        norm, missed = both[-1].flatten(1).norm(dim=1)
        assert adapter.reconstruction[name] == pytest.approx(float(missed / norm), abs=1e-5)
    norm, missed = torch.cat([pair.flatten(1) for pair in both], 1).norm(dim=1)
    assert adapter.reconstruction_error == pytest.approx(float(missed / norm), rel=1e-5)
    assert 0 < FilterAtoms(atoms=9, kc=4).fit_to(base).reconstruction_error < adapter.reconstruction_error
    for whole in (
        FilterAtoms(atoms=9, kc=0),
        FilterAtoms(atoms=9, kc=2),
        FilterAtoms(atoms=16, kc=4),
    ):  # as many atoms as kernels have numbers
        assert whole.fit_to(base).reconstruction_error < 1e-6
    with pytest.raises(FactorError, match="fit_to"):
        _ = FilterAtoms(atoms=5, kc=4).reconstruction_error


def test_resnet18_trains_a_few_hundred_numbers_a_stage():
    """16 convolutions of 3x3 and three of 1x1: 16 m K*K + 3 m kc*kc."""
    model = build("resnet18")
    adapter = FilterAtoms(atoms=9, kc=4, train_first_conv=False, train_classifier=False)
    adapter.attach(model, torch_stream(0, "A"))
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]
    formula = sum(9 * (4 * 4 if c.kernel_size == (1, 1) else 9) for c in convs)
    assert trainable_parameters(model) == formula == 16 * 81 + 3 * 144 == 1_728
    assert sum(t.numel() for t in adapter.read(model).values()) == 1_728


def test_overcomplete_atoms_count_with_the_channels():
    model = network()
    adapter = FilterAtoms(atoms=6, kc=0, m1=3, train_first_conv=False, train_classifier=False)
    adapter.attach(model, torch_stream(0, "A"))
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)][1:]
    assert trainable_parameters(model) == sum(c.in_channels * 6 * 3 + 6 * 3 * 9 for c in convs)


def test_without_kc_a_1x1_convolution_carries_nothing_and_stays():
    model, adapter = network(), FilterAtoms(atoms=9, kc=0)
    adapter.attach(model, torch_stream(0, "A"))
    shortcut = model.get_submodule("layer2.0.downsample.0")
    assert type(shortcut) is nn.Conv2d and not shortcut.weight.requires_grad
    assert not any("Dc" in name for name in adapter.read(model))


def test_alpha1_is_within_kaimings_bound_and_drawn_from_the_generator():
    alpha1, D1 = atoms.init_combination(64, 9, 4, (3, 3), torch_stream(0, "A"))
    assert not D1.any() and D1.shape == (9, 4, 3, 3)
    assert 0.9 / math.sqrt(4) < float(alpha1.abs().max()) <= 1 / math.sqrt(4)
    assert torch.equal(alpha1, atoms.init_combination(64, 9, 4, (3, 3), torch_stream(0, "A"))[0])
    assert not torch.equal(alpha1, atoms.init_combination(64, 9, 4, (3, 3), torch_stream(1, "A"))[0])


@pytest.mark.parametrize(
    ("second", "law"),
    [
        (nn.Conv2d(4, 6, 1), "kc that divides its channels; 1 has 4 in and 6 out, and kc = 4"),
        (nn.ConvTranspose2d(4, 4, 3), "transposed"),
    ],
)
def test_what_cannot_be_decomposed_is_refused_and_left_as_it_was(second: nn.Module, law: str):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), second, nn.Flatten(), nn.Linear(8, 2))
    for act in (
        lambda: FilterAtoms(atoms=9, kc=4).attach(model, torch_stream(0, "A")),
        lambda: FilterAtoms(atoms=9, kc=4).fit_to(model),
    ):
        with pytest.raises(FactorError, match=law):
            act()
    assert model[1] is second and all(p.requires_grad for p in model.parameters())


def test_codes_and_states_are_for_networks_of_their_kind():
    adapter = FilterAtoms(atoms=9, kc=4).fit_to(network())
    with pytest.raises(FactorError, match="another model"):
        adapter.attach(build("resnet14", width=4), torch_stream(0, "A"))
    expand = adapter.to_delta(network(), torch_stream(0, "A"))
    model = network()
    replace(adapter, atoms=6, codes=None).attach(model, torch_stream(0, "A"))
    with pytest.raises(FactorError, match="other settings"):
        expand(adapter.read(model))
    with pytest.raises(FactorError, match="came none"):
        expand({})


def test_settings_out_of_range_are_refused():
    for key, value in (("atoms", 0), ("m1", -1), ("kc", -1)):
        with pytest.raises(ConfigError, match=key):
            named_adapter("filter-atoms", **{key: value})
