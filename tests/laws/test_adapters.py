"""Laws of every adapter: a fresh one changes nothing, states come back, merged output is branch output."""

import copy

import pytest
import torch
from named_adapters import FOR_PLAIN, named_adapter
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter, trainable_parameters
from fed_lorac.adapters.deltas import State, apply_delta, changed_names, dense_delta
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.errors import FactorError
from fed_lorac.models import build
from fed_lorac.models.fingerprints import named_tensors, shapes_of
from fed_lorac.seeds import torch_stream

METHODS = FOR_PLAIN


def network() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet8", width=4).double().eval()


def attached(method: str, **settings: object) -> tuple[nn.Module, Adapter]:
    model = network()
    adapter = named_adapter(method, rank=2, alpha=4.0, **settings).fit_to(model)
    adapter.attach(model, torch_stream(0, "adapter"))
    return model, adapter


def change(adapter: Adapter, state: State) -> State:
    """What a state says, as who has the base alone finds it."""
    return adapter.to_delta(network(), torch_stream(0, "adapter"))(state)


def moved(model: nn.Module) -> nn.Module:
    """What it trains, at random values."""
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return model


def images() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_adapter_changes_no_output_and_no_weight(method: str):
    model, adapter = attached(method)
    assert torch.allclose(model(images()), network()(images()), atol=1e-12)
    changes = change(adapter, adapter.read(model))
    weights = {name: t.float() for name, t in named_tensors(network()).items()}
    before = {name: t.clone() for name, t in weights.items()}
    apply_delta(weights, changes, adapter.scale)
    assert all(torch.equal(weights[name], before[name]) for name in weights)


@pytest.mark.parametrize("method", METHODS)
def test_merged_output_is_branch_output(method: str):
    model, adapter = attached(method)
    moved(model)
    merged = network()
    state = {name: t.double() for name, t in change(adapter, adapter.read(model)).items()}
    apply_delta(named_tensors(merged), state, adapter.scale)
    assert torch.allclose(merged(images()), model(images()), atol=1e-6)  # states are float32
    assert not torch.allclose(merged(images()), network()(images()), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_state_goes_into_a_network_attached_alike(method: str):
    model, adapter = attached(method)
    state = adapter.read(moved(model))
    other, _ = attached(method)
    adapter.load(other, state)
    assert all(torch.equal(a, b) for a, b in zip(adapter.read(other).values(), state.values(), strict=True))
    with pytest.raises(FactorError):
        adapter.load(other, dict(list(state.items())[1:]))


def kinds(model: nn.Module) -> list[tuple[str, type[nn.Module]]]:
    return [(name, type(module)) for name, module in model.named_modules()]


@pytest.mark.parametrize("method", METHODS)
def test_a_merged_copy_is_a_plain_network_with_the_same_outputs(method: str):
    model, adapter = attached(method)
    moved(model)
    outputs, merged = model(images()), adapter.merge(model)
    assert torch.allclose(merged(images()), outputs, atol=1e-9)
    assert torch.equal(model(images()), outputs)
    assert kinds(merged) == kinds(network()) and merged.state_dict().keys() == network().state_dict().keys()
    assert [p.requires_grad for p in merged.parameters()] == [p.requires_grad for p in network().parameters()]
    assert vars(merged).keys() == vars(network()).keys()


@pytest.mark.parametrize("method", METHODS)
def test_delta_is_what_the_state_says(method: str):
    model, adapter = attached(method)
    moved(model)
    said = change(adapter, adapter.read(model))
    found, shapes = adapter.delta(model), shapes_of(network())
    assert sorted(found) == sorted(changed_names(said))
    for name, dense in found.items():
        assert torch.allclose(dense.float(), dense_delta(said, name, shapes[name], adapter.scale), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_comes_off_without_a_trace(method: str):
    model, adapter = attached(method)
    moved(model)
    adapter.detach(model)
    assert torch.equal(model(images()), network()(images()))
    assert kinds(model) == kinds(network()) and vars(model).keys() == vars(network()).keys()
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in network().parameters()]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_trained_is_what_is_sent(method: str):
    model, adapter = attached(method)
    assert sum(t.numel() for t in adapter.read(model).values()) == trainable_parameters(model)


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        ("norm-affine", {}, 2_640),  # 1,568 of batch norm, 432 of the first convolution, 640 of the classifier
        ("norm-affine", {"train_first_conv": False, "train_classifier": False}, 1_568),
        ("linear-probe", {}, 650),
        ("full", {}, 272_474),
    ],
)
def test_counts_on_resnet20(method: str, settings: dict[str, bool], expected: int):
    model = build("resnet20")
    adapter = named_adapter(method=method, **settings)
    adapter.attach(model, torch_stream(0, "adapter"))
    assert trainable_parameters(model) == expected


@pytest.mark.parametrize("adapter", [NormAffine(train_classifier=False), LoraC(train_classifier=False)], ids=repr)
def test_a_network_without_a_classifier_is_adapted_where_none_is_trained(adapter: Adapter):
    headless = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3))
    adapter.attach(headless, torch_stream(0, "adapter"))
    assert "0.weight" in adapter.read(headless)


@pytest.mark.parametrize("method", ["lorae", "conv-lora"])
@pytest.mark.parametrize("beside", [True, False])
def test_filter_factors_count_as_in_the_papers(method: str, beside: bool):
    """r * (in*K*K + out) for each convolution but the first (LoRAE; PEFT's conv LoRA)."""
    model, _ = attached(method, train_first_conv=beside, train_classifier=beside)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    factors = sum(2 * (c.in_channels * c.kernel_size[0] ** 2 + c.out_channels) for c in convs[1:])
    ends = convs[0].weight.numel() + model.get_parameter("fc.weight").numel()
    assert trainable_parameters(model) == factors + beside * ends


def test_conv_lora_is_pefts_layer():
    """The other route: PyPI's peft, its own layer, with our factors in it."""
    import peft

    model, adapter = attached("conv-lora", train_first_conv=False, train_classifier=False)
    moved(model)
    state = adapter.read(model)
    targets = sorted({name.rpartition(".")[0] for name in state})
    theirs = peft.get_peft_model(
        copy.deepcopy(network()), peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, lora_dropout=0.0)
    ).eval()
    for name, module in theirs.base_model.model.named_modules():
        if hasattr(module, "lora_A") and name in targets:
            down, up = module.lora_A["default"], module.lora_B["default"]
            down.weight.data = state[f"{name}.A"].view(down.weight.shape).double()
            up.weight.data = state[f"{name}.B"].view(up.weight.shape).double()
    assert torch.allclose(theirs(images()), model(images()), atol=1e-6)
    assert sum(p.numel() for n, p in theirs.named_parameters() if "lora_" in n) == trainable_parameters(model)
