"""Batch norm folded into convolutions: what can be folded is, what can't stays and is counted, and outputs agree."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from networks import Drawn, NormAct, Zoo, drawn, images, settled, zoo
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from fed_lorac.adapters.fold_bn import fixed_norms_folded, fold_batch_norm, folding_of
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.errors import FactorError
from fed_lorac.export import Deployed, load_network
from fed_lorac.export.formats import FORMATS
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream
from fed_lorac.training.accuracy import accuracy, batch_norms, reestimate_statistics, statistics_of
from fed_lorac.training.batches import to_input

X = images(torch.float64)
NORM3 = ("norm3", "last")  # what folds in every Zoo, if anything does


@torch.no_grad()
def kept_by_both(model: nn.Module) -> dict[str, str]:
    """What stays, and why; the network answers the same folded, folded for a while, and after that as ever."""
    model.double()
    expected, hooks = model(X), [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    folding, folded = folding_of(model), fold_batch_norm(model)
    assert torch.allclose(folded(X), expected, atol=1e-10)
    own = {name: dict(vars(m)) for name, m in model.named_modules()}
    with fixed_norms_folded(model, model):
        assert torch.allclose(model(X), expected, atol=1e-10)
        passed = {name for name, m in model.named_modules() if "forward" in vars(m) and "forward" not in own[name]}
    assert passed == {*folding.folded, *folding.folded.values()}
    assert {name: dict(vars(m)) for name, m in model.named_modules()} == own
    assert torch.equal(model(X), expected)
    left = [type(m) for _, m in batch_norms(folded)]
    assert len(left) == len(folding.kept) and len(folding.folded) + len(left) == sum(1 for _ in batch_norms(model))
    counts = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in folded.modules()]
    assert sum(counts) == sum(hooks)
    return dict(folding.kept)


@settings(max_examples=100)
@given(d=drawn)
def test_folding_keeps_every_networks_outputs(d: Drawn) -> None:
    kept_by_both(zoo(d))


def test_what_is_pytorchs_own_is_folded() -> None:
    for norm in ("batch", "batch, synchronised", "batch, cumulative", "batch, no affine"):
        assert kept_by_both(zoo(Drawn(norm=norm))) == {}
    assert str(folding_of(zoo())) == "folded 3, kept 0"


def test_a_subclass_may_do_more_and_stays() -> None:
    why = "it is a NormAct, which may do more"
    assert kept_by_both(zoo(Drawn(norm="batch, activation inside"))) == {f"norm{n}": why for n in (1, 2, 3)}
    some = zoo()
    some.norm2 = settled(NormAct(4))
    assert kept_by_both(some) == {"norm2": why} and str(folding_of(some)) == "folded 2, kept 1"


def test_norms_that_are_no_batch_norms_are_not_counted() -> None:
    for norm in ("instance", "group", "none"):
        assert str(folding_of(zoo(Drawn(norm=norm)))) == "folded 0, kept 0"


def test_a_norm_without_statistics_stays() -> None:
    kept = kept_by_both(zoo(Drawn(norm="batch, no statistics")))
    assert set(kept.values()) == {"it keeps no running statistics"}


def _hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * 2


def _before(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0] + 1,)


def _patch(module: nn.Module) -> None:
    plain = module.forward
    module.forward = lambda x: plain(x) * 3  # type: ignore[method-assign]


def _patch_inside(m: Zoo) -> None:
    plain = m.last._conv_forward
    m.last._conv_forward = lambda *args: plain(*args).relu()  # type: ignore[method-assign]


def _weight_normed(m: Zoo) -> None:
    weight_norm(m.last)
    m(images())


def _share_weight(m: Zoo) -> None:
    m.other = nn.Conv2d(4, 4, 1)
    m.other.weight = m.last.weight


def _second_name(m: Zoo) -> None:
    m.other = m.norm3  # type: ignore[assignment]


def _padded_twice(m: Zoo) -> None:
    m.last = type("Conv2dSame", (nn.Conv2d,), {"forward": lambda self, x: nn.Conv2d.forward(self, x) + 1})(4, 4, 1)


def _always_training(m: Zoo) -> None:
    m.norm3.train()
    m.norm3.train = lambda mode=True: m.norm3  # type: ignore[method-assign]


ODD: dict[str, tuple[Callable[[Zoo], Any], str]] = {
    "a hook on the norm": (lambda m: m.norm3.register_forward_hook(_hook), "it has hooks"),
    "a hook before the norm": (lambda m: m.norm3.register_forward_pre_hook(_before), "it has hooks"),
    "a hook on the convolution": (lambda m: m.last.register_forward_hook(_hook), "its convolution last has hooks"),
    "a hook before it": (lambda m: m.last.register_forward_pre_hook(_before), "its convolution last has hooks"),
    "the norm's forward": (lambda m: _patch(m.norm3), "it has a forward of its own"),
    "the convolution's": (lambda m: _patch(m.last), "its convolution last has a forward of its own"),
    "what its forward calls": (_patch_inside, "its convolution last has a forward of its own"),
    "a weight norm": (_weight_normed, "its convolution last has hooks"),
    "a shared weight": (_share_weight, "its convolution last shares its tensors with another layer"),
    "two names": (_second_name, "it shares its tensors with another layer"),
    "another kind of convolution": (_padded_twice, "its convolution last is a Conv2dSame, which may do more"),
    "a norm that stays in training mode": (_always_training, "it is in training mode"),
}


@pytest.mark.filterwarnings("ignore:.*deprecated")
@pytest.mark.parametrize("what", ODD)
def test_what_folding_would_change_unseen_stays(what: str) -> None:
    model, (make, why) = zoo(), ODD[what]
    make(model)
    if what == "a norm that stays in training mode":  # its outputs move with each call
        assert folding_of(model).kept == {"norm3": why}
    elif what == "a weight norm":
        with pytest.raises(FactorError, match="the weight of a weight norm"):
            folding_of(model)
        model.last.weight.detach_()
        assert folding_of(model).kept == {"norm3": why}
    else:
        assert kept_by_both(model) == {"norm3": why}


class Pair(nn.Module):
    """A convolution in one container, its norm in another."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Sequential(nn.Conv2d(3, 4, 3)), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x))
        return y


def test_hooks_on_a_container_keep_what_they_see() -> None:
    assert kept_by_both(settled(Pair())) == {}
    for hooked in ("a", "b"):
        seen: list[Any] = []
        model = settled(Pair())
        model.get_submodule(hooked).register_forward_hook(lambda m, args, y, seen=seen: seen.append(y) or y + 1)
        why = f"hooks of {hooked} see what is between it and its convolution a.0"
        assert kept_by_both(model) == {"b.0": why}
        assert all(isinstance(y, Tensor) for y in seen)  # nothing that stands for a tensor was shown to it
    around = nn.Sequential(settled(Pair()))
    around[0].register_forward_hook(_hook)
    assert kept_by_both(around) == {}


class Reader(Zoo):
    """Its forward reads a convolution's weight, or a norm's, beside calling it."""

    reads = "last"

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.get_submodule(self.reads).weight.sum()  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("reads", NORM3)
def test_a_layer_whose_tensors_are_read_elsewhere_stays(reads: str) -> None:
    model = Reader(Drawn())
    model.reads = reads
    assert kept_by_both(settled(model)) == {"norm3": f"tensors of {reads} are read elsewhere"}


class Aliased(Zoo):
    """Its forward calls the norm by its second name."""

    def __init__(self) -> None:
        super().__init__(Drawn(norm="batch, no affine"))
        self.alias = self.norm1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.alias(self.first(x)).mean((2, 3)))
        return y


def test_a_norm_that_is_called_by_its_second_name_is_not_applied_twice() -> None:
    kept = kept_by_both(settled(Aliased()))
    assert kept["norm1"] == "it shares its tensors with another layer"
    assert kept["norm2"] == kept["norm3"] == "no call of it was seen"


class Ordered(nn.Module):
    """What it calls turns on a setting."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self.order, self.conv, self.norm = order, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x


def test_two_networks_of_the_same_layers_may_have_another_dataflow() -> None:
    for order, kept in (
        (["conv", "norm"], {}),
        (["norm", "conv"], {"norm": "it does not follow a convolution"}),
        (["conv", "norm", "norm"], {"norm": "it is called 2 times"}),
        (["conv", "conv", "norm"], {"norm": "its convolution conv is called 2 times"}),
    ):
        assert kept_by_both(settled(Ordered(order))) == kept


def test_a_forward_that_was_set_on_a_container_is_followed() -> None:
    model = Ordered(["conv", "norm"])
    whole = settled(nn.Sequential(model))
    model.forward = lambda x: model.conv(model.norm(x))  # type: ignore[method-assign]
    with torch.no_grad():
        expected = whole(images())
        with fixed_norms_folded(whole, whole):
            assert torch.equal(whole(images()), expected)


@pytest.mark.parametrize("norm", ["batch", "batch, activation inside", "batch, no statistics"])
def test_a_merged_network_answers_as_the_attached_one_with_what_folds_folded(norm: str) -> None:
    model = zoo(Drawn(norm=norm)).double()
    adapter = LoraC(rank=2, alpha=4.0)
    adapter.attach(model, torch_stream(0, "A"))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1)
        assert torch.allclose(fold_batch_norm(adapter.merge(model))(X), model(X), atol=1e-10)
        with fixed_norms_folded(model, model):
            folded = model(X)
        assert torch.allclose(folded, model(X), atol=1e-10)


class Scored(nn.Module):
    """A network whose classes turn on the activation inside its norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 2, 1), norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y[:, :, 0, 0] - torch.tensor([0.5, 0.0])


def test_accuracy_is_that_of_the_network_as_it_is() -> None:
    model, draw = Scored(NormAct(2)).eval(), torch_stream(0, "photos")
    without = Scored(nn.BatchNorm2d(2)).eval()
    without.load_state_dict(model.state_dict())
    photos = torch.randint(0, 256, (50, 4, 4, 3), dtype=torch.uint8, generator=draw)
    with torch.no_grad():
        labels, others = (one(to_input(photos)).argmax(1) for one in (model, without))
    assert not torch.equal(labels, others)  # as the activation was lost, these were scored
    assert accuracy(model, photos, labels) == accuracy(without, photos, others) == 1.0


class OwnNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm that is none of PyTorch's by name."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


def test_every_kind_of_batch_norm_has_statistics_of_a_camera() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), OwnNorm(4), NormAct(4), nn.InstanceNorm2d(4))
    assert [name for name, _ in batch_norms(model)] == ["1", "2"]
    reestimate_statistics(model, torch.full((4, 8, 8, 3), 200, dtype=torch.uint8))
    assert set(statistics_of(model)) == {f"{n}.running_{s}" for n in "12" for s in ("mean", "var")}
    assert statistics_of(model)["1.running_mean"].abs().min() > 0


@pytest.mark.parametrize("norm", ["batch", "batch, activation inside", "group"])
def test_an_export_says_how_many_batch_norms_it_left(norm: str) -> None:
    some = zoo(Drawn(norm=norm))
    told = {fold: Deployed.of(copy.deepcopy(some), fold=fold).batch_norm for fold in (True, False)}
    assert (
        told
        == {
            "batch": {True: "folded", False: "kept"},
            "batch, activation inside": {True: "kept", False: "kept"},
            "group": {True: "none", False: "none"},
        }[norm]
    )


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_a_network_of_which_some_folds_is_exported_as_it_answers(tmp_path: Path) -> None:
    some = zoo()
    some.norm2 = settled(NormAct(4))
    deployed, pixels = Deployed.of(some, fold=True), torch.rand(2, 3, 12, 12) * 255
    assert deployed.batch_norm == "folded 2, kept 1"
    for kind in ("torchscript", "onnx"):
        path = tmp_path / f"network{FORMATS[kind].suffix}"
        path.write_bytes(FORMATS[kind].encode(deployed, 12, {"batch_norm": deployed.batch_norm}))
        with torch.no_grad():
            got, expected = _answers(path, pixels), Deployed.of(some, fold=False)(pixels)
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def _answers(path: Path, pixels: Tensor) -> Tensor:
    if path.suffix == ".pt":
        got: Tensor = torch.jit.load(path)(pixels)
        return got
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": pixels.numpy()})[0])


def test_a_partly_folded_networks_file_is_read_as_one_that_is_folded(tmp_path: Path) -> None:
    folded = Deployed.of(build("resnet8", width=4).eval(), fold=True)
    said = {"holds": "network", "model": "resnet8", "classes": str([str(n) for n in range(10)]).replace("'", '"')}
    said |= {"width": "4", "norm": "batch", "shortcut": "projection", "batch_norm": "folded 9, kept 0"}
    save_file(folded.network.state_dict(), tmp_path / "network.safetensors", said)
    read, pixels = load_network(tmp_path / "network.safetensors"), torch.rand(2, 3, 32, 32) * 255
    assert torch.equal(read(pixels), folded(pixels))
