"""LoRA-C on networks: what is trained, exactness of both routes, turns, and that nothing is left behind."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fed_lorac.adapters.adapter import trainable_parameters
from fed_lorac.adapters.branches import Branch, adapted_layers, inject
from fed_lorac.adapters.deltas import apply_delta, changed_names, dense_delta, fold
from fed_lorac.adapters.fold_bn import fold_batch_norm
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.low_rank import LoraConv2d, faster_route
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.targets import auto_rank_mode
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream

PAPER = {  # METHODS.md, section 1: full; R = r*K at r = 1, 4, 16; R = r at r = 1, 4, 16
    "resnet18": (11_173_962, (73_280, 272_576, 1_069_760), (29_888, 99_008, 375_488)),
    "resnet34": (21_282_122, (140_096, 539_840, 2_138_816), (52_160, 188_096, 731_840)),
    "resnet50": (23_520_842, (131_648, 459_968, 1_773_248), (86_336, 278_720, 1_048_256)),
    "resnet101": (42_512_970, (253_504, 947_392, 3_722_944), (155_968, 557_248, 2_162_368)),
}


def net(name: str = "resnet8", **settings: object) -> nn.Module:
    """A small CIFAR ResNet whose batch norm has seen something."""
    settings = {"width": 6, **settings} if name == "resnet8" else settings
    model = build(name, generator=torch_stream(3, name), **settings)  # type: ignore[arg-type]
    generator = torch_stream(4, name)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(generator=generator).mul_(0.2)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 2, generator=generator)
                module.bias.normal_(generator=generator)
    return model.eval()


def attach(model: nn.Module, *, seed: int = 0, **settings: Any) -> LoraC:
    adapter = LoraC(**settings)
    adapter.attach(model, torch_stream(seed, "lora_c"))
    return adapter


def carry(conv: nn.Conv2d, A: Tensor, B: Tensor, scale: float, route: str = "auto") -> None:
    inject(conv, LoraConv2d, Branch({"A": A, "B": B}, {}, {"scale": scale, "route": route}))


def images(n: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch_stream(5, "images")).to(dtype)


def disturb(model: nn.Module, by: float = 0.05) -> None:
    """As a turn of training would: every trainable number moves."""
    generator = torch_stream(6, "disturb")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=by)


def trace_of(model: nn.Module) -> list[object]:
    """Everything about a network that an adapter might leave a trace in."""
    modules = [
        (name, id(module), type(module), module.training, sorted(vars(module)), dict(module._forward_hooks))
        for name, module in model.named_modules()
    ]
    values = [(name, tensor.clone().tolist()) for name, tensor in model.state_dict().items()]
    return [modules, values, [(name, id(p), p.requires_grad) for name, p in model.named_parameters()]]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_parameter_counts_are_reproduced_digit_for_digit(name: str):
    full, *settings_of = PAPER[name]
    for mode, counts in zip(("r*k", "r"), settings_of, strict=True):
        for rank, count in zip((1, 4, 16), counts, strict=True):
            with torch.device("meta"):
                model = build(name)
            assert sum(p.numel() for p in model.parameters()) == full
            attach(model, rank=rank, alpha=2 * rank, rank_mode=mode)
            assert trainable_parameters(model) == count


def test_an_adapter_runs_on_the_meta_device_where_shapes_cost_nothing():
    with torch.device("meta"):
        model = build("resnet18")
        attach(model, rank=4, alpha=8)
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("resnet8", "r*k"), ("resnet56", "r*k"), ("resnet18", "r*k"), ("resnet34", "r*k"), ("resnet50", "r")],
)
def test_auto_is_r_times_k_for_basic_blocks_and_r_for_bottlenecks(name: str, mode: str):
    with torch.device("meta"):
        model = build(name)
    assert auto_rank_mode(model) == LoraC(rank=1).fit_to(model).rank_mode == mode
    attach(model, rank=1, alpha=1)
    layers = adapted_layers(model).values()
    assert all(layer.A.shape[0] == (layer.kernel_size[0] if mode == "r*k" else 1) for layer in layers)


def test_every_convolution_but_the_first_has_a_branch_and_the_rest_is_frozen():
    model = net()
    attach(model, rank=2, alpha=4)
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    branches = list(adapted_layers(model))
    assert branches == convs[1:] and "layer2.0.downsample.0" in branches
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"conv1.weight", "fc.weight"} | {f"{n}.{s}" for n in branches for s in "AB"}


def test_the_message_holds_what_is_trained_no_more_no_less():
    for kernel_wise in (False, True):
        model = net().to(memory_format=torch.channels_last)
        adapter = attach(model, rank=2, alpha=4, kernel_wise=kernel_wise)
        state = adapter.read(model)
        assert sum(tensor.numel() for tensor in state.values()) == trainable_parameters(model)
        assert list(state) == sorted(state)
        assert all(tensor.dtype == torch.float32 and tensor.is_contiguous() for tensor in state.values())


def test_kernel_wise_counts_two_r_k_in_out_numbers_a_convolution():
    model = net()
    plain = sum(m.weight.numel() for n, m in model.named_modules() if n in ("conv1", "fc"))
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)][1:]
    attach(model, rank=3, alpha=3, kernel_wise=True)
    branches = sum(2 * 3 * c.kernel_size[0] * c.in_channels * c.out_channels for c in convs)
    assert trainable_parameters(model) == plain + branches


@pytest.mark.parametrize(
    ("route", "kernel_wise"),
    [("auto", False), ("dense", False), ("two-step", False), ("thin", False), ("auto", True), ("dense", True)],
)
def test_a_fresh_adapter_changes_no_output(route: str, kernel_wise: bool):
    model, x = net(), images()
    before = model(x)
    attach(model, rank=2, alpha=4, route=route, kernel_wise=kernel_wise)
    assert torch.equal(model(x), before)


shapes = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    rank=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, 2, "valid", "same"]),
    padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    batched=st.booleans(),
)
def test_all_routes_agree_in_output_and_gradients(
    shape, rank, stride, dilation, padding, padding_mode, bias, dtype, batched
):
    out, in_, k = shape
    stride = 1 if padding == "same" else stride
    how = {"stride": stride, "dilation": dilation, "padding": padding, "padding_mode": padding_mode, "bias": bias}
    conv = nn.Conv2d(in_, out, k, dtype=dtype, **how)
    generator = torch_stream(1, "routes")
    with torch.no_grad():
        conv.weight.normal_(generator=generator).div_(k * in_**0.5)
    conv.weight.requires_grad_(False)
    A = torch.randn(rank, in_ * k, generator=generator) / (in_ * k) ** 0.5
    carry(conv, A, torch.randn(out * k, rank, generator=generator) / rank**0.5, 2.0)
    assert isinstance(conv, LoraConv2d)
    x = torch.randn((2, in_, 9, 10) if batched else (in_, 9, 10), generator=generator).to(dtype)
    results = []
    for route in ("dense", "two-step", "thin"):
        conv.route = route  # type: ignore[assignment]
        x = x.detach().requires_grad_()
        y = conv(x)
        y.square().mean().backward()
        results.append((y.detach(), x.grad, conv.A.grad, conv.B.grad))
        assert conv.weight.grad is None
        conv.A.grad = conv.B.grad = None
    plain = nn.Conv2d(in_, out, k, dtype=dtype, **how)  # a third route: a plain layer with the merged weight
    plain.load_state_dict({"weight": conv.effective_weight(conv.own()), **({"bias": conv.bias} if bias else {})})
    close = 1e-10 if dtype == torch.float64 else 1e-5
    assert torch.allclose(plain(x), results[0][0], rtol=0, atol=close)
    for one, *others in zip(*results, strict=True):
        for other in others:
            assert (one - other).abs().max() <= close * max(1.0, one.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_all_routes_agree_on_a_whole_network(dtype: torch.dtype):
    x, outputs = images(dtype=dtype), []
    for route in ("dense", "two-step", "thin"):
        model = net().to(dtype)
        attach(model, rank=2, alpha=4, route=route)
        disturb(model)
        outputs.append(model(x))
    scale = outputs[0].abs().max()
    for output in outputs[1:]:
        assert (outputs[0] - output).abs().max() < scale * (1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.parametrize(("route", "base_convs", "branches"), [("two-step", 2, 3), ("thin", 2, 2), ("dense", 3, 0)])
def test_each_route_does_its_own_arithmetic_and_no_more(route: str, base_convs: int, branches: int):
    """In units of one convolution: a frozen one runs forward and back to its input, a trained one to its weight too."""
    conv = nn.Conv2d(16, 12, 3, padding=1, bias=False)
    conv.weight.requires_grad_(False)
    carry(conv, torch.randn(2, 48), torch.randn(36, 2), 1.0, route)
    x = torch.randn(2, 16, 8, 8, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        conv(x).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    pixels, product = 2 * 2 * 8 * 8, 2 * (36 * 2 * 48)
    products = {"two-step": 0, "thin": 1, "dense": 3}  # B @ A, forward; by A and by B
    unit, branch = pixels * 12 * 16 * 9, pixels * (6 * 16 * 9 + 12 * 6)
    assert sum(counts.values()) == base_convs * unit + branches * branch + products[route] * product


def test_the_rule_reads_shapes_and_device_type_alone():
    assert faster_route((16, 16, 3, 3), 2) == "dense"
    assert faster_route((512, 512, 3, 3), 3) == "thin"
    assert faster_route((512, 512, 3, 3), 512) == "dense"  # wider than it is worth
    assert faster_route((512, 512, 3, 3), 3, "cuda") == "dense"  # until measured there
    layer = nn.Conv2d(512, 512, 3)
    carry(layer, torch.zeros(3, 1536), torch.zeros(1536, 3), 1.0)
    assert isinstance(layer, LoraConv2d) and layer.pick_route() == "thin"
    with torch.no_grad():
        assert layer.pick_route() == "dense"  # no backward pass: one convolution is cheapest


def test_training_moves_what_is_trained_and_nothing_else():
    model = net().train()
    attach(model, rank=2, alpha=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):  # A moves from the second step on: B was zero
        optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
        optimizer.zero_grad()
        F.cross_entropy(model(images()), torch.arange(4)).backward()
        optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {n for n in before if n.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad} | statistics


def test_train_and_eval_alter_no_weight():
    model = net()
    attach(model, rank=2, alpha=4)
    disturb(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train().eval().train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_detach_leaves_no_trace():
    model, fired = net(), []
    model.layer1[0].conv1.register_forward_hook(lambda *_: fired.append(1))
    model.bn1.weight.requires_grad_(False)
    model.layer2.train()
    before = trace_of(model)
    adapter = attach(model, rank=2, alpha=4)
    disturb(model)
    model.eval()(images()).sum().backward()
    model.layer2.train()
    assert fired and trace_of(model) != before
    adapter.detach(model)
    assert trace_of(model) == before
    assert model.conv1.weight.grad is None


def test_an_attached_network_can_be_copied_and_saved():
    model, x = net(), images()
    adapter = attach(model, rank=2, alpha=4)
    disturb(model)
    twin = copy.deepcopy(model)
    other = net()
    attach(other, rank=2, alpha=4, seed=9)
    other.load_state_dict(model.state_dict())
    for same in (twin, other):
        assert torch.equal(same(x), model(x))
        assert all(torch.equal(t, adapter.read(model)[n]) for n, t in adapter.read(same).items())
    disturb(model)
    assert not torch.equal(twin(x), model(x))


def plain_flops(model: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(x)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("fold_bn", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"shortcut": "identity"}, {"norm": "group"}, {"name": "resnet18"}, {"name": "resnet50"}],
    ids=str,
)
def test_merge_gives_the_plain_network_with_the_adapters_outputs(settings: dict[str, str], fold_bn: bool):
    plain, x = net(**settings), images(2)
    model = copy.deepcopy(plain)
    adapter = attach(model, rank=2, alpha=4)
    disturb(model, 0.01)
    with torch.no_grad():
        expected, before = model(x), model.state_dict()
        merged = fold_batch_norm(adapter.merge(model)) if fold_bn else adapter.merge(model)
        like = fold_batch_norm(plain) if fold_bn else plain
        assert (merged(x) - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())
        assert (plain(x) - expected).abs().max() > 1e-3
        assert [type(m) for m in merged.modules()] == [type(m) for m in like.modules()]
        assert list(merged.state_dict()) == list(like.state_dict())
        assert plain_flops(merged, x) == plain_flops(plain, x)
    assert [(n, p.requires_grad) for n, p in merged.named_parameters()] == [
        (n, p.requires_grad) for n, p in like.named_parameters()
    ]
    assert model.state_dict().keys() == before.keys() and isinstance(model.layer1[0].conv1, LoraConv2d)


@pytest.mark.parametrize("kernel_wise", [False, True])
def test_a_merged_network_is_the_base_with_its_state_folded_in(kernel_wise: bool):
    model, base = net(), net()
    adapter = attach(model, rank=2, alpha=4, kernel_wise=kernel_wise)
    disturb(model)
    fold(base, adapter.read(model), adapter.scale)
    for name, tensor in adapter.merge(model).state_dict().items():
        assert torch.allclose(tensor, base.state_dict()[name], atol=1e-6)


def test_folding_finds_every_batch_norm_by_type_and_leaves_what_it_must():
    x = images(2)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fold_batch_norm(net("resnet18")).modules())
    group = net(norm="group")
    kept = fold_batch_norm(group)
    assert list(kept.state_dict()) == list(group.state_dict()) and torch.equal(kept(x), group(x))
    shared = nn.Conv2d(3, 3, 1)
    odd = nn.Sequential(
        nn.BatchNorm2d(3),  # before any convolution
        shared,
        nn.BatchNorm2d(3),  # its convolution serves twice
        shared,
        nn.Conv2d(3, 4, 3, bias=True),
        nn.BatchNorm2d(4, affine=False),  # folds
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, track_running_stats=False),  # keeps no statistics
    )
    odd(x)  # one step in training mode, so that the statistics are not trivial
    folded = fold_batch_norm(odd.eval())
    assert isinstance(folded, nn.Sequential)
    assert [isinstance(m, nn.Identity) for m in folded] == [False] * 5 + [True] + [False] * 2
    assert torch.allclose(folded(x), odd(x), atol=1e-5)


def test_a_convolution_whose_output_is_used_beside_its_norm_is_not_folded():
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return y.add(self.norm(y))

    fork = Fork().eval()
    assert isinstance(fold_batch_norm(fork).norm, nn.BatchNorm2d)


def test_a_network_that_cannot_be_traced_is_refused_by_fold_bn():
    class Branching(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(FactorError, match="cannot trace"):
        fold_batch_norm(Branching(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))


def test_a_state_read_is_the_state_loaded():
    model, twin, x = net(), net(), images()
    for seed, one in enumerate((model, twin)):
        adapter = attach(one, rank=2, alpha=4, seed=seed)
    disturb(model)
    state = adapter.read(model)
    adapter.load(twin, state)
    assert torch.allclose(twin(x), model(x), atol=1e-6)
    for name, tensor in adapter.read(twin).items():
        assert torch.allclose(tensor, state[name], atol=1e-7)
    state["conv1.weight"] += 1  # a state is a copy
    assert not torch.equal(adapter.read(model)["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize("breakage", ["missing", "unknown", "shape"])
def test_a_misfit_state_is_refused_and_nothing_is_half_loaded(breakage: str):
    model = net()
    adapter = attach(model, rank=2, alpha=4)
    disturb(model)
    before = adapter.read(model)
    state = {name: torch.ones_like(tensor) for name, tensor in before.items()}
    if breakage == "missing":
        del state["fc.weight"]
    elif breakage == "unknown":
        state["fc.bias"] = torch.ones(10)
    else:
        state["layer3.0.conv2.A"] = torch.ones(3, 72)
    with pytest.raises(FactorError):
        adapter.load(model, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapter.read(model).items())


def test_a_turn_begins_at_delta_zero_with_a_fresh_a():
    model, twin, x = net(), net(), images()
    before = model(x)
    adapter = attach(model, rank=2, alpha=4)
    disturb(model)
    adapter.detach(model)
    for one in (model, twin):
        adapter.attach(one, torch_stream(1, "round", 2))
    state = adapter.read(model)
    for name, tensor in state.items():
        assert tensor.any() == name.endswith(".A")
        assert torch.equal(tensor, adapter.read(twin)[name])
    assert torch.equal(model(x), before) and torch.equal(adapter.merge(model)(x), before)


def test_a_round_folds_alike_into_cameras_and_into_a_plain_base():
    base = {name: tensor.clone() for name, tensor in net().state_dict().items()}
    cameras, states = [net(), net()], []
    for seed, camera in enumerate(cameras):
        adapter = attach(camera, rank=2, alpha=4, seed=seed)
        disturb(camera, 0.02 * (seed + 1))
        states.append(adapter.read(camera))
    mean = {name: torch.zeros_like(base[name]) for name in changed_names(states[0])}
    for state in states:
        apply_delta(mean, state, adapter.scale, weight=0.5)
    apply_delta(base, mean, 1.0)
    plain = net()
    plain.load_state_dict(base)
    for camera in cameras:
        adapter.detach(camera)
        fold(camera, mean)
        assert torch.equal(camera(images()), plain(images()))
        assert all(torch.equal(tensor, base[name]) for name, tensor in camera.state_dict().items())
        adapter.attach(camera, torch_stream(1, "next"))
        assert not any(t.any() for n, t in adapter.read(camera).items() if not n.endswith(".A"))


def test_a_misfit_delta_is_refused_and_so_is_a_network_in_its_turn():
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for change in ({"fc.weight": torch.ones(9, 24)}, {"bn1.num_batches_tracked": torch.tensor(1.0)}):
        with pytest.raises(FactorError):
            fold(model, {"conv1.weight": torch.ones_like(model.conv1.weight), **change})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for method in (LoraC(), NormAffine()):
        attached = net()
        method.attach(attached, torch_stream(0, "A"))
        with pytest.raises(FactorError, match="Detach it first"):
            fold(attached, {})


def test_a_dense_delta_of_a_branch_is_the_layers_own_delta():
    model = net()
    adapter = attach(model, rank=2, alpha=4)
    disturb(model)
    layer = model.layer2[0].conv1
    change = dense_delta(adapter.read(model), "layer2.0.conv1.weight", layer.weight.shape, adapter.scale)
    assert torch.allclose(change, layer.delta(layer.own()).view(layer.weight.shape), atol=1e-7) and adapter.scale == 2.0


@pytest.mark.parametrize("route", ["dense", "two-step", "thin"])
def test_bf16_autocast_and_channels_last_work_forward_and_back(route: str):
    model, x = net().to(memory_format=torch.channels_last), images().to(memory_format=torch.channels_last)
    attach(model, rank=2, alpha=4, route=route)
    disturb(model)
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16
    assert (y - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def with_layer(layer: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), layer, nn.Flatten(), nn.Linear(4, 2))


class Strange(nn.Conv2d):
    """A convolution with a life of its own."""

    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input.flip(-1), weight, bias)


@pytest.mark.parametrize(
    "make",
    [
        with_layer(nn.ConvTranspose2d(4, 4, 3)),
        with_layer(nn.Conv1d(4, 4, 3)),
        with_layer(Strange(4, 4, 3)),
    ],
)
def test_a_layer_that_cannot_carry_a_branch_is_refused_by_name_before_anything_changes(
    make: Callable[[], nn.Module],
):
    model = make()
    before = [(n, id(m), type(m)) for n, m in model.named_modules()]
    with pytest.raises(FactorError, match="layer '2'"):
        attach(model, rank=1, alpha=1)
    assert [(n, id(m), type(m)) for n, m in model.named_modules()] == before
    assert all(p.requires_grad for p in model.parameters()) and "_dense_before" not in vars(model)


def test_networks_and_settings_that_make_no_sense_are_refused():
    headless = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    attached = net()
    attach(attached, rank=1, alpha=1)
    for wrong in (
        lambda: attach(headless, rank=1, alpha=1),
        lambda: attach(nn.Linear(3, 2), rank=1, alpha=1),
        lambda: attach(attached, rank=1, alpha=1),
        lambda: LoraC(route="fast"),
        lambda: LoraC(kernel_wise=True, route="two-step"),
        lambda: LoraC(kernel_wise=True, route="thin"),
        lambda: LoraC().detach(net()),
        lambda: LoraC().read(net()),
        lambda: LoraC().merge(net()),
    ):
        with pytest.raises(FactorError):
            wrong()
    for out_of_range in (
        {"rank": 0},
        {"alpha": 0},
        {"alpha": float("nan")},
        {"rank_mode": "k"},
        {"rank_mode": "r*k", "kernel_wise": True},
    ):
        with pytest.raises(ConfigError):
            LoraC(**out_of_range)  # type: ignore[arg-type]
    adapter = attach(headless, rank=1, alpha=1, train_classifier=False, train_first_conv=False)
    assert sorted(adapter.read(headless)) == ["1.A", "1.B"]


class Twice(nn.Module):
    """One convolution under one name, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 900, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.twice(self.twice(self.first(x))).flatten(1))
        return y


def test_a_convolution_called_twice_carries_one_branch():
    model = Twice()
    before, plain = trace_of(model), copy.deepcopy(model)
    adapter = attach(model, rank=1, alpha=1)
    assert list(adapted_layers(model)) == ["twice"]
    disturb(model)
    assert torch.allclose(adapter.merge(model)(images()), model(images()), atol=1e-5)
    assert list(adapter.merge(model).state_dict()) == list(plain.state_dict())
    adapter.detach(model)
    assert trace_of(model) == before
