"""Laws of adaptation rates: a network that adapts to each batch, by a second route, and what its rates are."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fed_lorac.adapters.adapting import RATES, AdaptsToBatch, rated
from fed_lorac.adapters.atp import Atp
from fed_lorac.adapters.fold_bn import fold_batch_norm
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.errors import ConfigError, FactorError, RunError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream
from fed_lorac.testing.adapters import check_adapter
from fed_lorac.training.accuracy import accuracy, batch_norms, reestimate_statistics
from fed_lorac.training.blocks import Stack, check_equal, why_apart

STATISTICS = ("running_mean", "running_var")


def network(norm: str = "batch") -> nn.Module:
    """A ResNet-8 of width 4 in float64 and eval mode, whose norms have seen something."""
    generator = torch_stream(0, "network")
    model = build("resnet8", num_classes=10, generator=generator, width=4, norm=norm).double().eval()
    for _, one in batch_norms(model):
        for name, low, high in (("running_mean", -0.5, 0.5), ("running_var", 0.5, 2.0)):
            one.get_buffer(name).uniform_(low, high, generator=generator)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "bn" in name:
                p.uniform_(0.5, 1.5, generator=generator)
    return model


def adapting(norm: str = "batch", *, rate: float = 0.02, online: bool = False, batch_images: int = 20) -> AdaptsToBatch:
    """The same with drawn rates, attached."""
    model, adapter = network(norm), Atp(batch_images=batch_images, online=online)
    adapter.prepare(model)
    adapter.attach(model, torch_stream(0, "adapter"))
    with torch.no_grad():
        model.get_parameter(RATES).normal_(std=rate, generator=torch_stream(0, "rates"))
    assert isinstance(model, AdaptsToBatch)
    return model


def batch(count: int, stream: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch_stream(stream, "batch")
    images = torch.randn((count, 3, 16, 16), generator=generator, dtype=torch.float64)
    return images, torch.randint(10, (count,), generator=generator)


@contextmanager
def noted(model: AdaptsToBatch) -> Iterator[list[tuple[Tensor, dict[str, Tensor]]]]:
    """While open, every batch that the network adapts to, and its directions."""
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    directions = model.directions

    def note(part: Tensor) -> dict[str, Tensor]:
        seen.append((part, directions(part)))
        return seen[-1][1]

    model.__dict__["directions"] = note
    yield seen
    del model.__dict__["directions"]


def places(images: Tensor, part: Tensor) -> list[int]:
    """Where in `images` those of a part are."""
    return [int((images == one).flatten(1).all(1).nonzero()) for one in part]


class _Norm(nn.Module):
    """Batch norm written out, whose statistics are parameters like others, and which remembers its batch's."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.eps = float(norm.eps)  # type: ignore[arg-type]
        for name in ("weight", "bias", *STATISTICS):
            self.register_parameter(name, nn.Parameter(getattr(norm, name).detach().clone()))
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        rows = x.detach().movedim(1, 0).flatten(1)
        self.seen = {"running_mean": rows.mean(1), "running_var": rows.var(1)}
        mean, var, weight, bias = (getattr(self, n).view(-1, 1, 1) for n in (*STATISTICS, "weight", "bias"))
        found: Tensor = (x - mean) / torch.sqrt(var.clamp(min=0) + self.eps) * weight + bias
        return found


def by_hand(images: Tensor, labels: Tensor, rho: Tensor, norm: str = "batch") -> tuple[Tensor, Tensor]:
    """The second route, as a plain loop: logits of the adapted network, and the slope of the loss in each rho."""
    model = network(norm)
    for name, one in list(batch_norms(model)):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, _Norm(one))
    names = rated(network(norm))
    tensors = [model.get_parameter(name) for name in names]
    logits = model(images)
    chances = logits.softmax(1)
    (-(chances * chances.log()).sum() / len(images)).backward()
    h = []
    for name, w in zip(names, tensors, strict=True):
        parent, _, child = name.rpartition(".")
        layer = model.get_submodule(parent)
        h.append(layer.seen[child] - w.detach() if child in STATISTICS else -w.grad)  # type: ignore[operator,index]
    with torch.no_grad():
        for w, step, one in zip(tensors, h, rho, strict=True):
            w.add_(one / w.numel() ** 0.25 * step).grad = None
    found = model(images)
    F.cross_entropy(found, labels).backward()
    slopes = [(w.grad * step).sum() / w.numel() ** 0.25 for w, step in zip(tensors, h, strict=True)]  # type: ignore[operator]
    return found.detach(), torch.stack(slopes)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_adapted_network_and_its_rates_slopes_are_those_of_a_plain_loop(norm: str) -> None:
    model, (images, labels) = adapting(norm), batch(20)
    logits = model(images)
    F.cross_entropy(logits, labels).backward()
    rates = model.get_parameter(RATES)
    assert rates.grad is not None
    said, slopes = by_hand(images, labels, rates.detach(), norm)
    assert not torch.allclose(said, network(norm)(images), atol=1e-3)  # they do something
    torch.testing.assert_close(logits.detach(), said, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rates.grad, slopes, rtol=1e-6, atol=1e-6)
    assert all(p.grad is None for name, p in model.named_parameters() if name != RATES)


@pytest.mark.parametrize(
    ("name", "settings", "count"),
    [("resnet20", {"shortcut": "identity"}, 97), ("resnet20", {}, 107), ("resnet18", {}, 102)],
)
def test_there_is_a_rate_for_each_parameter_tensor_and_running_statistic(
    name: str, settings: dict[str, str], count: int
) -> None:
    """As published for ResNet-18; 97 are of the ResNet-20 whose shortcuts have no weights."""
    model = build(name, **settings)
    tensors = sum(1 for _ in model.parameters())
    assert len(rated(model)) == tensors + 2 * sum(1 for _ in batch_norms(model)) == count
    Atp().prepare(model)
    assert model.get_parameter(RATES).shape == (count,) and len(rated(model)) == count


@pytest.mark.parametrize("adapter", [Atp(), Atp(batch_images=3), Atp(batch_images=3, online=True)], ids=repr)
def test_rates_keep_the_laws_of_an_adapter(adapter: Atp) -> None:
    check_adapter(adapter)
    check_adapter(adapter, network("group"))


def test_rates_of_zero_leave_the_network_as_it_is_to_the_bit() -> None:
    model, plain, (images, _) = network(), network(), batch(50)
    Atp().prepare(model)
    with torch.no_grad():
        assert torch.equal(model(images), plain(images))


def test_it_adapts_without_gradients_and_in_inference_mode_too() -> None:
    model, (images, _) = adapting(), batch(20)
    expected = model(images).detach()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(model(images.clone()), expected, rtol=1e-12, atol=1e-12)


def test_many_images_are_adapted_to_in_batches_of_near_equal_size() -> None:
    model, (images, _) = adapting(batch_images=20), batch(50)
    with noted(model) as seen, torch.no_grad():
        together = model(images)
    assert sorted(len(part) for part, _ in seen) == [16, 17, 17]
    with torch.no_grad():
        for part, _ in seen:
            torch.testing.assert_close(together[places(images, part)], model(part), rtol=1e-9, atol=1e-9)


def test_online_it_adapts_by_the_mean_pull_of_the_batches_so_far() -> None:
    """By a second route: the last of two batches is met with the mean of their directions."""
    model, (images, _) = adapting(batch_images=20, online=True), batch(40)
    with noted(model) as seen, torch.no_grad():
        together = model(images)
    (_, first), (part, second) = seen
    mean = {name: (h + second[name]) / 2 for name, h in first.items()}
    model.__dict__["directions"] = lambda part: mean
    with torch.no_grad():
        last = model(part)
    torch.testing.assert_close(together[places(images, part)], last, rtol=1e-9, atol=1e-9)


def test_while_norms_learn_from_a_batch_it_is_the_plain_network() -> None:
    model, plain = adapting().float(), network().float()
    images = torch.randint(256, (30, 16, 16, 3), dtype=torch.uint8, generator=torch_stream(0, "pixels"))
    for one in (model, plain):
        reestimate_statistics(one, images)
    for (name, one), (_, other) in zip(batch_norms(model), batch_norms(plain), strict=True):
        assert torch.equal(one.get_buffer("running_mean"), other.get_buffer("running_mean")), name


def test_no_rate_is_learned_while_a_batch_norm_learns_from_the_batch() -> None:
    model, (images, _) = adapting(), batch(20)
    with pytest.raises(FactorError, match=r"'bn1' is in training mode\. Call its eval"):
        model.train()(images)


def test_accuracy_is_of_batches_of_its_own_size() -> None:
    """Not of those that others are scored in: a rest of a few images would have statistics of its own."""
    model = adapting(batch_images=20).float()
    images = torch.randint(256, (130, 16, 16, 3), dtype=torch.uint8, generator=torch_stream(0, "pixels"))
    with noted(model) as seen:
        accuracy(model, images, torch.zeros(130, dtype=torch.int64))
    sizes = [len(part) for part, _ in seen]
    assert sorted(set(sizes)) == [18, 19] and sum(sizes) == 130


def test_a_network_that_adapts_is_never_folded() -> None:
    """Traced with rates of zero it would be the plain one, and the trace would outlive them."""
    model = network()
    Atp().prepare(model)
    with pytest.raises(FactorError, match="it adapts to each batch"):
        fold_batch_norm(model)


def test_rates_are_given_first_once_and_under_a_name_that_is_free() -> None:
    model = network()
    with pytest.raises(FactorError, match=r"Give it some first: Atp\(\)\.prepare"):
        Atp().attach(model, torch_stream(0, "adapter"))
    Atp().prepare(model)
    before = copy.deepcopy(model.state_dict())
    Atp().prepare(model)
    assert model.state_dict().keys() == before.keys()
    taken = network()
    taken.register_buffer(RATES, torch.zeros(1))
    with pytest.raises(FactorError, match="Rename it"):
        Atp().prepare(taken)


def test_networks_that_adapt_in_one_way_stand_side_by_side_and_no_others() -> None:
    assert why_apart(adapting()) == why_apart(adapting("group")) == ""
    with pytest.raises(RunError, match="number 1 differs from the first at 'its top'"):
        check_equal([adapting(), adapting(batch_images=10)])
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 14 * 14, 10)).eval()
    odd = _OfItsOwn()
    for model in (own, odd):
        Atp().prepare(model)
    assert why_apart(own) == "" and "the network, a Adapting_OfItsOwn" in why_apart(odd)


class _OfItsOwn(nn.Sequential):
    """A network whose forward is not known to leave each channel alone."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(12, 3))


def test_the_pulls_of_networks_side_by_side_are_each_networks_own() -> None:
    """Those that take no part have none towards a statistic."""
    models, (images, _) = [adapting() for _ in range(3)], batch(12)
    for place, model in enumerate(models):
        for _, norm in batch_norms(model):
            norm.get_buffer("running_mean").add_(0.1 * place)
    side, parts = Stack(models), list(images.split(4))
    together = side.network.directions(torch.cat(parts, 1))  # type: ignore[operator]
    for place, (model, part) in enumerate(zip(models, parts, strict=True)):
        for name, h in model.directions(part).items():
            torch.testing.assert_close(together[name][place], h, rtol=1e-9, atol=1e-12)
    side.part([0, 2])
    two = side.network.directions(torch.cat([parts[0], parts[2]], 1))  # type: ignore[operator]
    for name, h in two.items():
        torch.testing.assert_close(h[[0, 2]], together[name][[0, 2]], rtol=1e-9, atol=1e-12)
        assert not h[1].any()


def test_rates_are_no_part_beside_others() -> None:
    with pytest.raises(ConfigError, match="Atp does neither"):
        Parts((NormAffine(), Atp()))
