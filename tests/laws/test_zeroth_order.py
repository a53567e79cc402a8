"""Zeroth order: what forward passes tell is the slope, what cameras send is where they went, and its mean is theirs."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.along import COORDINATES_KEY, DIRECTIONS_NOTE, Along, Directions
from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.adapters.full import FullFineTuning
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.lora_xs import LoraXs
from fed_lorac.adapters.mask import Mask
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.adapters.subspace import Subspace
from fed_lorac.adapters.vera_b import VeraB
from fed_lorac.errors import ConfigError, FactorError, RunError
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.testing import check_objective, check_strategy
from fed_lorac.testing.laws import distance, equal, small_model
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.entropy import Entropy
from fed_lorac.training.objectives.forward_passes import ForwardPasses
from fed_lorac.training.objectives.mixed import Mixed
from fed_lorac.training.objectives.objective import Labels, Objective
from fed_lorac.training.objectives.pseudo_label import PseudoLabel
from fed_lorac.training.recipe import Recipe, Task
from strategies.rotating_basis import RotatingBasis
from strategies.zeroth_order import ZerothOrder

K = 6
ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "norm-affine": NormAffine,
    "full": FullFineTuning,
    "lora-xs": lambda: LoraXs(rank=2),
    "vera-b": lambda: VeraB(inner=2, train_classifier=False),
    "subspace": lambda: Subspace(dimension=20),
    "parts": lambda: Parts((NormAffine(), LoraXs(rank=2)), lr_factors=(1.0, 4.0)),
}
each = pytest.mark.parametrize("method", ADAPTERS)


def attached(method: str, round: int = 0) -> tuple[Along, nn.Module, nn.Module]:
    """The adapter, fitted; a plain base in float64, and a copy that carries it, in training mode."""
    base = small_model()
    adapter = Along(ADAPTERS[method](), K).fit_to(base)
    model = copy.deepcopy(base)
    adapter.attach(model, torch_stream(round, "adapter"))
    return adapter, base, model.train()


def task(camera: int, steps: int = 5) -> Task:
    draw = stream(0, "images", camera)
    images = torch.from_numpy(draw.integers(0, 256, (9, 12, 12, 3), "uint8"))
    return Task(images, torch.from_numpy(draw.integers(0, 10, 9)), steps, stream(1, "camera", camera))


RECIPE = Recipe(lr=0.05, batch_size=4, weight_decay=0.0, clip_norm=2.0, prox_mu=0.1, augment="none")


def trained(models: list[nn.Module], objective: Objective | None = None) -> list[nn.Module]:
    objective = objective or ForwardPasses(Labels(), per_step=2, smoothing=1e-3)
    train(models, [task(camera) for camera in range(len(models))], recipe=RECIPE, objective=objective)
    return models


def plain(model: nn.Module, adapter: Adapter) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in adapter.merge(model).named_parameters()}


@each
def test_the_mean_of_what_cameras_send_is_the_mean_of_what_they_did(method: str) -> None:
    adapter, base, model = attached(method)
    models = trained([copy.deepcopy(model) for _ in range(3)])
    states = [adapter.read(one)[COORDINATES_KEY].double() for one in models]
    assert all(state.abs().max() > 1e-4 for state in states)
    mean = {COORDINATES_KEY: torch.stack(states).mean(0)}
    server = copy.deepcopy(base)
    delta = adapter.to_delta(base, torch_stream(0, "adapter"))(mean)
    apply_delta(named_tensors(server), {name: t.double() for name, t in delta.items()}, adapter.scale)
    theirs = [plain(one, adapter) for one in models]
    for name, p in server.named_parameters():
        before = base.get_parameter(name).detach()
        moved = torch.stack([one[name] for one in theirs]).mean(0) - before
        assert (p.detach() - before - moved).abs().max() < 1e-6 * max(1, float(moved.abs().max())), name


@each
def test_a_state_of_directions_keeps_the_laws_of_states(method: str) -> None:
    adapter, base, model = attached(method)
    images = torch.randn((3, 3, 12, 12), generator=torch_stream(0, "images"), dtype=torch.float64)
    before = base(images)
    assert distance(model.eval()(images), before) < 1e-9
    state = {COORDINATES_KEY: torch.randn(K, generator=torch_stream(0, "c"))}
    adapter.load(model, state)
    assert distance(adapter.read(model)[COORDINATES_KEY], state[COORDINATES_KEY]) < 1e-5
    assert distance(adapter.merge(model)(images), model(images)) < 1e-9
    said = adapter.to_delta(base, torch_stream(0, "adapter"))(state)
    server = copy.deepcopy(base)
    apply_delta(named_tensors(server), {name: t.double() for name, t in said.items()}, adapter.scale)
    assert distance(server(images), model(images)) < 1e-4
    with pytest.raises(FactorError, match="coordinates"):
        adapter.load(model, {"strange": state[COORDINATES_KEY]})
    other = attached(method, round=1)[2].eval()
    adapter.restart(model, dict(base.named_parameters()), torch_stream(1, "adapter"))
    assert getattr(model, DIRECTIONS_NOTE) == getattr(other, DIRECTIONS_NOTE)
    assert equal(adapter.read(model), adapter.read(other))
    adapter.detach(model)
    assert torch.equal(model(images), before) and vars(model).keys() == vars(base).keys()


@each
def test_directions_are_of_length_one_and_differ(method: str) -> None:
    directions: Directions = getattr(attached(method)[2], DIRECTIONS_NOTE)
    rows = torch.stack([torch.cat([t.flatten() for t in directions.one(j).values()]) for j in range(K)])
    assert torch.equal(
        directions.spread(torch.eye(K)[2])[next(iter(directions.axes.shapes))].flatten()[:3], rows[2][:3]
    )
    if method != "parts":  # whose tensors of a larger rate are longer
        assert (rows @ rows.T - torch.eye(K)).abs().max() < 0.6
        assert (rows.norm(dim=1) - 1).abs().max() < 1e-5


def test_two_forward_passes_tell_the_slope_that_a_backward_pass_tells() -> None:
    _, _, model = attached("lora-xs")
    other = copy.deepcopy(model)
    directions: Directions = getattr(model, DIRECTIONS_NOTE)
    plainly = replace(RECIPE, lr=1.0, momentum=0.0, clip_norm=float("inf"), prox_mu=0.0, batch_size=9)
    objective = ForwardPasses(Labels(), per_step=K, smoothing=1e-5)
    start = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    for network, how in ((model, objective), (other, Labels())):
        train([network], [task(0, steps=1)], recipe=plainly, objective=how)
    ends = [[p.detach() for p in network.parameters() if p.requires_grad] for network in (model, other)]
    forward, backward = (torch.cat([(w - s).flatten() for w, s in zip(end, start, strict=True)]) for end in ends)
    Z = torch.stack([torch.cat([t.flatten() for t in directions.one(j).values()]) for j in range(K)]).double()
    assert distance(forward, Z.T @ (Z @ backward)) < 1e-6


@pytest.mark.parametrize("of", [Labels(), Entropy(), Mixed()], ids=["labels", "entropy", "mixed"])
def test_forward_passes_keep_the_laws_of_objectives(of: Objective) -> None:
    model = small_model()
    Along(FullFineTuning(), 8).attach(model, torch_stream(0, "adapter"))
    check_objective(ForwardPasses(of, per_step=3, smoothing=1e-3), model)


def test_running_statistics_move_once_a_step() -> None:
    _, _, model = attached("norm-affine")
    trained([model])
    assert {int(t) for name, t in model.named_buffers() if name.endswith("num_batches_tracked")} == {5}


def test_the_strategy_keeps_the_laws_of_strategies() -> None:
    check_strategy(ZerothOrder(), NormAffine())


def test_a_server_reads_states_along_its_own_directions_and_no_others() -> None:
    own, model = ZerothOrder(directions=K, per_step=1), small_model()
    for other in (NormAffine(), Along(NormAffine(), K + 1)):
        with pytest.raises(ConfigError, match=r"makes another. Give `strategy.adapted\(adapter\)`"):
            FrameStrategy.for_model(own, model, other)
        strategy = FrameStrategy.for_model(own, model, own.adapted(other))
        assert strategy.spec.template == {COORDINATES_KEY: (K,)}
    with pytest.raises(ConfigError, match="makes another"):  # bases of the base's weights do not rotate
        FrameStrategy.for_model(RotatingBasis(), model, LoraXs(rank=2))


def test_what_makes_no_sense_is_refused() -> None:
    assert "LoraC's is not" in (ZerothOrder().refuses(LoraC()) or "")
    assert "LoraC's is not" in (ZerothOrder().refuses(ZerothOrder().adapted(LoraC())) or "")
    with pytest.raises(ConfigError, match="per_step = 5 of directions = 4"):
        ZerothOrder(directions=4, per_step=5)
    with pytest.raises(FactorError, match="as many directions as numbers"):
        Along(Subspace(dimension=20, train_first_conv=False, train_classifier=False), 21).fit_to(small_model())
    assert "PseudoLabel has teachers" in (ForwardPasses(PseudoLabel(), 1, 0.1).refuses(8) or "")
    with pytest.raises(RunError, match="this network has none"):
        train([small_model()], [task(0)], recipe=RECIPE, objective=ForwardPasses(Labels(), 1, 0.1))


def test_what_is_cut_to_probabilities_does_not_go_along_drawn_directions() -> None:
    for adapter, name in ((Mask(), "Mask"), (Parts((NormAffine(), Mask())), "Parts")):
        said = ZerothOrder().refuses(Along(adapter, K))
        assert said is not None and f"what is cut to probabilities does not stay on them; {name}'s is" in said
