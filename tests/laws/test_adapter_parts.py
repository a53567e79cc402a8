"""Laws of adapters made of parts: each part's tensors, once, and the sum of their deltas."""

import copy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from named_adapters import FOR_PLAIN
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter, trainable_parameters
from fed_lorac.adapters.branched import BranchAdapter
from fed_lorac.adapters.conv_lora import ConvLora
from fed_lorac.adapters.deltas import dense_delta
from fed_lorac.adapters.ends import Ends
from fed_lorac.adapters.ffa_lora_c import FfaLoraC
from fed_lorac.adapters.filter_atoms import FilterAtoms
from fed_lorac.adapters.full import FullFineTuning
from fed_lorac.adapters.linear_probe import LinearProbe
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.adapters.subspace import Subspace
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.models import build
from fed_lorac.registry import ADAPTERS
from fed_lorac.seeds import torch_stream
from fed_lorac.testing import check_adapter
from fed_lorac.training.loop import Sgd

FIRST, LAST = "layer1.*", "layer3.*"
TOGETHER = {
    "norms and lora-c": Parts((NormAffine(), LoraC())),
    "norms and a frozen basis": Parts((NormAffine(), FfaLoraC())),
    "lora-c relative to its draw": Parts((NormAffine(), LoraC())).relative_to_init(),
    "norms and atoms": Parts((NormAffine(), FilterAtoms())),
    "two scales": Parts((LoraC(alpha=8.0, layers=FIRST), ConvLora(alpha=1.0, layers=LAST))),
    "factors and a frozen basis": Parts((LoraC(layers=FIRST), FfaLoraC(layers=LAST))),
    "a probe last": Parts((NormAffine(), LoraC(layers=FIRST), LinearProbe())),
    "factors on rates": Parts((NormAffine(), LoraC()), lr_factors=(1.0, 0.1)),
}


def plain() -> nn.Module:
    return build("resnet8", width=4, generator=torch_stream(0, "model")).double().eval()


def attached(adapter: Adapter, stream: int = 0) -> nn.Module:
    model = plain()
    adapter.attach(model, torch_stream(stream, "adapter"))
    return model


def moved(model: nn.Module, stream: int = 0) -> nn.Module:
    draw = torch_stream(stream, "moved")
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype)
    return model


def dense_deltas(adapter: Adapter, state: dict[str, Tensor]) -> dict[str, Tensor]:
    base = plain()
    said = adapter.to_delta(base, torch_stream(0, "adapter"))(state)
    shapes = {name: tensor.shape for name, tensor in base.state_dict().items()}
    names = {key.removesuffix(".A") + ".weight" if key.endswith(".A") else key for key in said if key[-2:] != ".B"}
    return {name: dense_delta(said, name, shapes[name], adapter.scale) for name in names}


@pytest.mark.parametrize("adapter", TOGETHER.values(), ids=TOGETHER)
def test_parts_keep_the_laws_of_one_adapter(adapter: Parts) -> None:
    check_adapter(adapter)


@pytest.mark.parametrize("method", [name for name in FOR_PLAIN if name not in ("norm-affine", "full")])
def test_every_built_in_adapter_stands_beside_norm_affine(method: str) -> None:
    adapter = ADAPTERS.make(f"norm-affine + {method}")
    other = ADAPTERS.make(method)
    assert adapter.linear == other.linear
    both = trainable_parameters(attached(adapter))
    norms = trainable_parameters(attached(NormAffine(train_first_conv=False, train_classifier=False)))
    ends = {"train_first_conv": False, "train_classifier": False} if method != "linear-probe" else {}
    alone = trainable_parameters(attached(replace(other, **ends)))
    kept = plain()
    first = kept.get_parameter("conv1.weight").numel()
    beside = first if method == "linear-probe" else first + kept.get_parameter("fc.weight").numel()
    assert both == norms + alone + beside  # each end is trained once


def test_the_delta_is_the_sum_of_the_parts_deltas() -> None:
    """By a second route: each part alone, with its own tensors and on a network of its own."""
    norms, factors = NormAffine(), FfaLoraC(train_first_conv=False, train_classifier=False)
    adapter = Parts((norms, factors)).fit_to(plain())
    state = adapter.read(moved(attached(adapter)))
    together = dense_deltas(adapter, state)
    of_norms = {key: tensor for key, tensor in state.items() if key in norms.read(attached(norms))}
    assert all(torch.equal(together[name], tensor) for name, tensor in of_norms.items())
    draw = adapter._draws(torch_stream(0, "adapter"))[1]
    rest = {key: tensor for key, tensor in state.items() if key not in of_norms}
    alone = factors.to_delta(plain(), draw)(rest)
    for name in together.keys() - of_norms.keys():
        stem = name.removesuffix(".weight")
        product = (alone[f"{stem}.B"] @ alone[f"{stem}.A"]).reshape(together[name].shape)
        torch.testing.assert_close(together[name], product)


def test_an_end_belongs_to_the_first_part_that_trains_it() -> None:
    fitted = Parts((NormAffine(train_classifier=False), LoraC())).fit_to(plain())
    ends = cast(tuple[Ends, ...], fitted.parts)
    assert [(p.train_first_conv, p.train_classifier) for p in ends] == [
        (True, False),
        (False, True),
    ]
    fitted = Parts((NormAffine(), LoraC(), LinearProbe())).fit_to(plain())
    assert [getattr(p, "train_classifier", None) for p in fitted.parts] == [False, False, None]


@pytest.mark.parametrize("parts", [(LinearProbe(), LoraC()), (LoraC(), LinearProbe())], ids=["first", "last"])
def test_so_does_a_classifier_that_is_a_convolution(parts: tuple[BranchAdapter, ...]) -> None:
    """As SqueezeNet's is; a part that leaves it to another puts no branch on it either."""
    convs = [nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 10, 1)]
    base = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    check_adapter(Parts(parts), base)
    fitted = Parts(parts).fit_to(base)
    beside = [name for part in fitted.parts for name in part.trained_beside(base)]
    assert sorted(beside) == ["0.weight", "3.bias", "3.weight"] and set(fitted.places or ()) == {(), ("1", "2")}
    assert LoraC(train_classifier=False).fit_to(base).places(base) == ("1", "2", "3")  # nobody's end: one of all
    both = Parts((LoraC(layers="1"), ConvLora(layers="2"))).fit_to(base)
    assert both.places == (("1",), ("2",))
    assert [part.trained_beside(base) for part in both.parts] == [["0.weight", "3.weight"], []]


def test_a_part_whose_ends_are_all_others_has_no_rank_for_them() -> None:
    norms = NormAffine(train_first_conv=False, end_rank=2)
    subspace = Subspace(dimension=20, ends_inside=True)
    for parts in ((LinearProbe(), norms), (NormAffine(), subspace)):
        check_adapter(Parts(parts))
        left = Parts(parts).fit_to(plain()).parts[1]
        assert left.state_is_delta == isinstance(left, NormAffine) and not left.thin


def test_two_parts_that_train_one_tensor_are_refused_by_name() -> None:
    for parts in ((LoraC(), ConvLora()), (LoraC(layers=FIRST), FilterAtoms(layers="layer1.0.conv2"))):
        with pytest.raises(FactorError, match=r"LoraC and .* both train 'layer1\.0\.conv\d\.weight'"):
            Parts(parts).fit_to(plain())
    model = plain()
    with pytest.raises(FactorError, match="FullFineTuning both train"):
        Parts((NormAffine(), FullFineTuning())).attach(model, torch_stream(0, "adapter"))
    assert vars(model).keys() == vars(plain()).keys()


class Stranger(Adapter):
    def attach(self, *given: Any) -> None: ...
    def read(self, model: nn.Module) -> dict[str, Tensor]:
        return {}

    def load(self, *given: Any) -> None: ...
    def detach(self, model: nn.Module) -> None: ...
    def merge(self, model: nn.Module) -> nn.Module:
        return model


def test_what_cannot_be_a_part_is_refused() -> None:
    with pytest.raises(ConfigError, match="Stranger does neither"):
        Parts((NormAffine(), Stranger()))
    with pytest.raises(ConfigError, match="two or more"):
        Parts((NormAffine(),))
    with pytest.raises(ConfigError, match="got 2 parts and lr_factors = 1, 2, 3"):
        Parts((NormAffine(), LoraC()), lr_factors=(1.0, 2.0, 3.0))


def test_each_parts_tensors_learn_at_its_own_rate() -> None:
    """One step at factors (0.5, 2) is a step at lr / 2 on norms and ends, and at 2 lr on branches."""
    x, y = torch.randn(4, 3, 16, 16, generator=torch_stream(0, "x"), dtype=torch.float64), torch.arange(4)

    def stepped(adapter: Adapter) -> dict[str, Tensor]:
        from fed_lorac.training.loop import _lr_factors

        model = attached(adapter)
        nn.functional.cross_entropy(model(x), y).backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        sgd = Sgd([0.0] * len(trained), 0.9, False, float("inf"), lr_factors=_lr_factors(model))
        before = [p.detach().clone() for p in trained]
        sgd.step([(p.data[None], None if p.grad is None else p.grad[None]) for p in trained], [0.1])
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        return {n: p.detach() - b for n, p, b in zip(names, trained, before, strict=True)}

    plain_step = stepped(Parts((NormAffine(), FfaLoraC())))
    found = stepped(Parts((NormAffine(), FfaLoraC()), lr_factors=(0.5, 2.0)))
    for name, step in plain_step.items():
        torch.testing.assert_close(found[name], step * (2.0 if name.endswith(".B") else 0.5))


def test_parts_of_lower_rank_train_what_the_largest_does() -> None:
    largest = Parts((NormAffine(), LoraC(rank=4))).fit_to(plain())
    lower = Parts((NormAffine(), LoraC(rank=1))).fit_like(largest, plain())
    assert largest.rank == 4 and lower.rank == 1
    assert {n.rpartition(".")[0] for n in lower.read(attached(lower))} == {
        n.rpartition(".")[0] for n in largest.read(attached(largest))
    }
    assert copy.deepcopy(lower) == lower
    assert not Parts((NormAffine(), LinearProbe())).has_rank
