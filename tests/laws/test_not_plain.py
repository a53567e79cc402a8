"""Networks that are not plain: an adapter is exact on them, or refuses them before anything is touched."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from named_adapters import FOR_PLAIN, named_adapter
from networks import LAYERS, NOT_PLAIN, TIED, Drawn, all_of, drawn, images, zoo
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.fold_bn import fold_batch_norm
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.config import load_config
from fed_lorac.errors import FactorError, RunError
from fed_lorac.models import build
from fed_lorac.registry import ADAPTERS
from fed_lorac.seeds import torch_stream
from fed_lorac.training.blocks import why_apart

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|removed in a future)")
SETTINGS: dict[str, dict[str, Any]] = {name: {"method": name} for name in FOR_PLAIN} | {
    "lora-c r": {"method": "lora-c", "rank_mode": "r"},
    "lora-c kernel-wise": {"method": "lora-c", "kernel_wise": True},
    "lora-c alone": {"method": "lora-c", "train_first_conv": False, "train_classifier": False},
    "filter-atoms overcomplete": {"method": "filter-atoms", "m1": 3},
}


ROUTES = ("auto", "dense", "two-step", "thin")
each_adapter = pytest.mark.parametrize("adapter", SETTINGS)


def made(adapter: str) -> Adapter:
    return named_adapter(rank=2, alpha=4.0, **SETTINGS[adapter])


def attach(adapter: str, model: nn.Module) -> Adapter:
    one = made(adapter)
    one.attach(model, torch_stream(0, "adapter"))
    return one


def refused(adapter: str, model: nn.Module) -> str:
    """What an adapter says of a network, which is as it was."""
    before, one = all_of(model), made(adapter)
    with pytest.raises(FactorError) as error:
        one.attach(model, torch_stream(0, "adapter"))
    assert all_of(model) == before
    return str(error.value)


def moved(model: nn.Module, by: float = 0.1) -> nn.Module:
    """What it trains, at random values."""
    draw = torch_stream(1, "moved")
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(by * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return model


@torch.no_grad()
def off(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1.0))


@pytest.mark.parametrize("what", TIED)
def test_tied_tensors_are_refused_by_both_names_before_anything_is_touched(what: str) -> None:
    model, (tie, named) = zoo(Drawn(bias=True)), TIED[what]
    tie(model)
    for adapter in SETTINGS:
        said = refused(adapter, model)
        assert all(repr(name) in said for name in named), adapter


@pytest.mark.parametrize("what", NOT_PLAIN)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_weight_that_is_no_plain_parameter_is_refused_with_the_remedy(layer: str, what: str) -> None:
    model, (spoil, remedy) = zoo(Drawn(bias=True)), NOT_PLAIN[what]
    spoil(model.get_submodule(layer))
    for adapter in SETTINGS:
        said = refused(adapter, model)
        assert layer in said and remedy in said, adapter


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_a_base_that_is_not_plain_is_refused_where_an_adapter_is_prepared_for_it(what: str) -> None:
    model = zoo(Drawn(bias=True))
    NOT_PLAIN[what][0](model.mid)
    for use in (made("filter-atoms").fit_to, lambda m: made("aad").to_delta(m, torch_stream(0, "adapter"))):
        with pytest.raises(FactorError, match="mid"):
            use(model)


MENDED: dict[str, tuple[Callable[[nn.Module], Any], Callable[[nn.Module], Any]]] = {
    "pruned": (NOT_PLAIN["pruned"][0], lambda m: prune.remove(m, "weight")),
    "weight norm, old": (weight_norm, remove_weight_norm),
    "spectral norm, old": (spectral_norm, remove_spectral_norm),
    "parametrized": (NOT_PLAIN["parametrized"][0], lambda m: parametrize.remove_parametrizations(m, "weight")),
}


@each_adapter
@pytest.mark.parametrize("what", MENDED)
def test_the_remedy_helps(adapter: str, what: str) -> None:
    model, (spoil, mend) = zoo(), MENDED[what]
    for layer in LAYERS:
        spoil(model.get_submodule(layer))
    model(images())  # in eval mode: what the hooks leave is the value of now
    before = model(images())
    for layer in LAYERS:
        mend(model.get_submodule(layer))
    one = attach(adapter, model)
    assert off(model(images()), before) < 1e-5
    moved(model)
    assert off(one.merge(model)(images()), model(images())) < 1e-5


@settings(max_examples=150)
@given(
    adapter=st.sampled_from(sorted(SETTINGS)),
    d=drawn,
    double=st.booleans(),
    tie=st.just("") | st.sampled_from(sorted(TIED)),
)
def test_a_merged_network_answers_as_the_attached_one_or_attach_refused_it(
    adapter: str, d: Drawn, double: bool, tie: str
) -> None:
    dtype = torch.float64 if double else torch.float32
    model = zoo(replace(d, bias=True, norm="batch") if tie else d).to(dtype)
    if tie:
        TIED[tie][0](model)
        refused(adapter, model)
    elif adapter == "norm-affine" and d.norm in ("none", "batch, no affine"):
        assert "has none" in refused(adapter, model)
    else:
        plain, x = model(images(dtype)), images(dtype)
        one = attach(adapter, model)
        assert off(model(x), plain) < (1e-12 if double else 1e-6)
        with torch.no_grad():
            expected = moved(model)(x)
            assert off(expected, plain) > 1e-4
            assert off(one.merge(model)(x), expected) < (1e-10 if double else 1e-5)
            one.detach(model)
            assert torch.equal(model(x), plain)


@settings(max_examples=60)
@given(d=drawn, route=st.sampled_from(ROUTES), fold=st.booleans())
def test_lora_c_is_exact_by_every_route_folded_or_not(d: Drawn, route: Any, fold: bool) -> None:
    model = zoo(d).double()
    adapter = LoraC(rank=2, alpha=4.0, route=route)
    adapter.attach(model, torch_stream(0, "adapter"))
    expected = moved(model)(images(torch.float64))
    with torch.no_grad():
        merged = fold_batch_norm(adapter.merge(model)) if fold else adapter.merge(model)
        assert off(merged(images(torch.float64)), expected) < 1e-10


@each_adapter
def test_a_networks_own_hooks_are_called_as_ever_and_stay(adapter: str) -> None:
    model, called = zoo(), []
    handle = model.mid.register_forward_hook(lambda module, args, output: called.append(output.shape))
    one = attach(adapter, model)
    one.merge(model)(images())
    model(images())
    one.detach(model)
    model(images())
    handle.remove()
    assert len(called) == 3


@each_adapter
@pytest.mark.parametrize("other", ["lora-c", "aad", "full"])
def test_a_network_carries_one_adapter_at_a_time(adapter: str, other: str) -> None:
    model = zoo()
    attach(other, model)
    assert "one adapter at a time" in refused(adapter, model)


@pytest.mark.parametrize("own", ["forward", "_conv_forward"])
def test_a_convolution_with_a_forward_of_its_own_would_pass_its_branch_by(own: str) -> None:
    for adapter in ("lora-c", "aad", "filter-atoms"):
        model = zoo()
        setattr(model.mid, own, lambda *args: torch.zeros(1))
        said = refused(adapter, model)
        assert f"'mid' has a {own} of its own" in said


def test_a_convolution_whose_weight_was_cut_is_refused() -> None:
    model = zoo()
    model.mid.weight = nn.Parameter(model.mid.weight.detach()[:2].clone())
    assert "(4, 4, 3, 3), and it is (2, 4, 3, 3)" in refused("lora-c", model)


def test_a_branch_replaces_nothing_that_its_convolution_has() -> None:
    model = zoo()
    model.mid.scale = 3.0  # type: ignore[assignment]
    for adapter in ("aad", "lora-c"):
        assert "'mid' has an attribute 'scale' already" in refused(adapter, model)
    attach("filter-atoms", model)


def test_a_parameter_by_the_name_of_a_factor_is_refused_where_it_would_be_sent() -> None:
    model = zoo()
    model.twice.A, model.twice.B = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    assert "'twice.A'" in refused("full", model)
    attach("linear-probe", model)


def test_layers_without_shapes_or_weights_are_refused() -> None:
    lazy, empty = zoo(), zoo()
    lazy.mid = nn.LazyConv2d(4, 3)
    empty.mid.weight = None  # type: ignore[assignment]
    for adapter in SETTINGS:
        assert "Run a batch through the network first" in refused(adapter, lazy)
        assert "'mid', a Conv2d, has no weight" in refused(adapter, empty)


def test_script_and_quantized_layers_are_refused_by_what_they_are() -> None:
    script, packed = zoo(), zoo()
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated, and still about
        script.set_submodule("mid", torch.jit.script(script.mid))
    packed.set_submodule("fc", torch.ao.nn.quantized.Linear(4, 4))
    for adapter in SETTINGS:
        assert "TorchScript" in refused(adapter, script)
        assert "'fc', a Linear, is quantized" in refused(adapter, packed)


class Watched(nn.Module):
    """It keeps what it saw last."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.seen = zoo(), torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.network(x)
        return self.seen


@each_adapter
def test_a_network_that_keeps_an_activation_is_merged_once_that_is_deleted(adapter: str) -> None:
    model = Watched().eval()
    one = attach(adapter, model)
    expected = moved(model)(images()).detach()
    with pytest.raises(FactorError, match="keep a tensor of a forward pass"):
        one.merge(model)
    del model.seen
    assert off(one.merge(model)(images()), expected) < 1e-5


class Recurrent(nn.Module):
    """Weights by the names weight_ih_l0 and weight_hh_l0."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.rnn(x)[0][:, -1])
        return y


def test_a_recurrent_networks_weights_are_trained_by_their_own_names() -> None:
    model, x = Recurrent().eval(), torch.randn(2, 3, 6, generator=torch_stream(0, "x"))
    one = attach("full", model)
    expected = moved(model)(x)
    assert "rnn.weight_hh_l0" in one.read(model)
    assert torch.equal(one.merge(model)(x), expected)
    pruned = Recurrent()
    prune.l1_unstructured(pruned.rnn, "weight_hh_l0", 0.3)
    assert 'prune.remove(layer, "weight_hh_l0")' in refused("full", pruned)


def test_views_of_one_storage_that_do_not_overlap_are_not_tied() -> None:
    model = zoo()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    nn.utils.vector_to_parameters(flat, model.parameters())
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == 1
    one = attach("full", model)
    expected = moved(model)(images())
    assert torch.equal(one.merge(model)(images()), expected)


def test_constants_may_be_shared() -> None:
    model = zoo()
    mean = torch.ones(3)
    model.register_buffer("mean", mean)
    model.fc.register_buffer("mean", mean)
    attach("full", model)


def test_norm_affine_trains_every_kind_of_norm() -> None:
    for norm in ("batch", "batch, activation inside", "batch, synchronised", "instance", "group"):
        model = zoo(Drawn(norm=norm))
        names = set(attach("norm-affine", model).read(model))
        assert names == {f"norm{n}.{own}" for n in (1, 2, 3) for own in ("weight", "bias")} | {
            "first.weight",
            "fc.weight",
        }


def test_norm_affine_trains_the_layer_norms_of_a_network_without_batch_norm() -> None:
    model = build("convnext_tiny", num_classes=3)
    found = set(attach("norm-affine", model).read(model))
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 23 and {f"{name}.{own}" for name in norms for own in ("weight", "bias")} < found


def test_bn_affine_is_another_name_of_norm_affine() -> None:
    names = "bn-affine", "norm-affine"
    old, new = (load_config(None, [f"adapter.method={name}", "train_classifier=false"]) for name in names)
    assert old.adapter.build("method") == new.adapter.build("method") == NormAffine(train_classifier=False)
    assert load_config(None, ["adapter.method=bn-affine", "adapter.bn-affine.train_first_conv=false"])
    assert "bn-affine" not in ADAPTERS.names and ADAPTERS.takes("bn-affine")


def hooked(model: nn.Module) -> nn.Module:
    model.layer1[0].conv1.register_forward_hook(lambda module, args, output: None)  # type: ignore[index, union-attr]
    return model


def test_networks_with_hooks_or_ties_are_trained_apart() -> None:
    network = build("resnet8", width=4)
    assert why_apart(network) == ""
    assert "layer1.0.conv1, a Conv2d, has hooks" in why_apart(hooked(copy.deepcopy(network)))
    replaced = copy.deepcopy(network)
    replaced.layer1.forward = lambda x: x  # type: ignore[union-attr, method-assign]
    assert "layer1, a Sequential, has a forward of its own" in why_apart(replaced)
    tied = copy.deepcopy(network)
    layer = tied.get_submodule("layer3.0.conv2")
    layer.bias, tied.fc.bias = nn.Parameter(torch.zeros(16)), nn.Parameter(torch.zeros(10))
    assert why_apart(tied) == ""
    tied.fc.bias = nn.Parameter(layer.bias.detach()[:10])
    assert "layer3.0.conv2.bias and fc.bias are tied" in why_apart(tied)


def test_networks_of_which_one_is_hooked_are_not_alike() -> None:
    from test_blocks import RECIPE, tasks

    from fed_lorac.training.loop import train

    models = [build("resnet8", width=4), hooked(build("resnet8", width=4))]
    with pytest.raises(RunError, match=r"layer1\.0\.conv1"):
        train(models, tasks([(4, 1), (4, 1)]), recipe=RECIPE)
