"""Objectives: each formula by a second route, and the laws of `check_objective`."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_lorac.errors import ConfigError
from fed_lorac.registry import OBJECTIVES
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.testing import check_objective
from fed_lorac.training.batches import Feed, autocast, to_input
from fed_lorac.training.blocks import Alone, Stack
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.consistency import Consistency
from fed_lorac.training.objectives.entropy import Entropy
from fed_lorac.training.objectives.entropy_filtered import EntropyFiltered
from fed_lorac.training.objectives.label_free import LabelFree
from fed_lorac.training.objectives.mixed import Mixed
from fed_lorac.training.objectives.objective import NO_LABEL, Batch, Labels, Learners, Losses, Objective
from fed_lorac.training.objectives.pseudo_label import PseudoLabel
from fed_lorac.training.recipe import Recipe, Task

CLASSES, SIDE, BATCH = 4, 4, 6

KINDS: dict[str, Objective] = {
    "labels": Labels(),
    "entropy": Entropy(),
    "entropy, TENT": Entropy(diversity=0.0),
    "entropy-filtered": EntropyFiltered(redundancy=0.9),
    "entropy-filtered, SAR": EntropyFiltered(redundancy=1.0, weighted=False, sharpness=0.05),
    "pseudo-label": PseudoLabel(threshold=0.6),
    "pseudo-label of the global model": PseudoLabel(threshold=0.6, decay=1.0, view="none"),
    "pseudo-label of a teacher": PseudoLabel(threshold=0.6, decay=0.9),
    "consistency": Consistency(),
    "consistency, CoTTA": Consistency(views=2, decay=0.999, restore=0.01),
    "mixed": Mixed(),
    "mixed, FixMatch": Mixed(rest=PseudoLabel(threshold=0.6)),
    "mixed, SAR": Mixed(rest=EntropyFiltered(sharpness=0.05)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_keeps_the_laws(kind: str) -> None:
    check_objective(KINDS[kind])


def test_every_built_in_objective_is_held_to_them() -> None:
    assert {type(one) for one in KINDS.values()} == set(map(OBJECTIVES.load, OBJECTIVES.names))


@dataclass(frozen=True)
class Peeks(LabelFree):
    """Against the law: it looks at labels."""

    source = "nobody"

    def losses(self, batch: Batch) -> Losses:
        p = batch.logits.softmax(-1)
        return self.guessed((p.max(-1).values * batch.labels).mean(0), p)


@dataclass(frozen=True)
class Joins(LabelFree):
    """Against the law: one camera's loss depends on all images of the block."""

    source = "nobody"
    weight: float = setting(1.0, "how much")

    def losses(self, batch: Batch) -> Losses:
        p = batch.logits.softmax(-1)
        return self.guessed(self.weight * (p * p.mean((0, 1))).sum(-1).mean(0), p)


@dataclass(frozen=True)
class OneForAll(LabelFree):
    """Against the law: one number for all cameras."""

    source = "nobody"

    def losses(self, batch: Batch) -> Losses:
        p = batch.logits.softmax(-1)
        return self.guessed(-p.max(-1).values.mean(), p)


@dataclass(frozen=True)
class OneForEachImage(OneForAll):
    """Against the law: a number for each image of each camera."""

    def losses(self, batch: Batch) -> Losses:
        p = batch.logits.softmax(-1)
        return self.guessed(-p.max(-1).values, p)


@dataclass(frozen=True)
class Plain(Objective):
    """Against the law: a tensor in place of losses."""

    source = "nobody"
    uses_labels = True

    def losses(self, batch: Batch) -> Losses:
        found: Any = batch.logits.log_softmax(-1)[..., 0].mean(0)
        return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OneForAllUphill(EntropyFiltered):
    """Against the law a step uphill."""

    source = "nobody"

    def losses_uphill(self, batch: Batch, first: Losses) -> Tensor:
        return super().losses_uphill(batch, first).mean()


@dataclass(frozen=True)
class Slips(Objective):
    """Takes a tensor for something else."""

    source = "nobody"

    def losses(self, batch: Batch) -> Losses:
        return Losses(batch.logits.sofmax(-1))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Modest(Objective):
    """Minus the largest probability.

    Source: nobody, 2027.
    """

    def losses(self, batch: Batch) -> Losses:
        return Losses(-batch.logits.softmax(-1).max(-1).values.mean(0))


def test_an_objective_may_say_its_source_in_its_docstring() -> None:
    check_objective(Modest())


WRONG: dict[Objective, str] = {
    OneForAll(): r"losses gives shape \(\), not \(1,\)",
    OneForEachImage(): r"losses gives shape \(6, 1\), not \(1,\)",
    Plain(): "losses gives Tensor in place of Losses",
    OneForAllUphill(sharpness=0.05): r"losses_uphill gives shape \(\), not \(1,\)",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_losses_that_are_not_one_for_each_camera_are_refused_with_the_objectives_name(wrong: Objective) -> None:
    """Those of a camera alone too: a gradient must not depend on how many train side by side."""
    law = f"An objective of your own is .*{__name__}:{type(wrong).__name__}' is not: {WRONG[wrong]}"
    for objective in (wrong, Mixed(rest=wrong)):
        batch, learners = a_batch(linear(0), pictures(0), torch.arange(BATCH) % CLASSES)
        objective.begin(learners)
        with pytest.raises(ConfigError, match=law):
            objective.gradients(batch)


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        (Peeks(), "must not see them"),
        (Joins(), "side by side what it learns"),
        (OneForAll(), "must give a loss for each; got ConfigError: An objective of your own"),
        (Plain(), "must give a loss for each; got ConfigError: An objective of your own"),
        (Slips(), "must give a loss for each; got AttributeError"),
    ],
)
def test_the_check_finds_what_breaks_a_law(wrong: Objective, law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_objective(wrong)


def linear(seed: int, scale: float = 3.0) -> nn.Module:
    """A network whose logits are linear in its input, in float64."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=torch_stream(seed, "w"), dtype=torch.float64) / 7)
    return model


def pictures(seed: int, count: int = BATCH) -> Tensor:
    return torch.from_numpy(stream(seed, "pictures").integers(0, 256, (count, SIDE, SIDE, 3), np.uint8))


def a_batch(model: nn.Module, images: Tensor, labels: Tensor | None = None) -> tuple[Batch, Learners]:
    """All images of one camera as a batch."""
    labels, device = torch.full((len(images),), NO_LABEL) if labels is None else labels, torch.device("cpu")
    rngs = [stream(0, "batch")]
    feed = Feed([images], [labels], rngs, batch_size=len(images), augment="none", device=device, shuffled=False)
    learners = Learners(Alone(model), rngs)
    return Batch(learners, feed, [0], [torch.arange(len(images))], "fp32", torch.float64), learners


def probabilities(model: nn.Module, images: Tensor) -> np.ndarray:
    """By NumPy."""
    logits = model(to_input(images).double()).detach().numpy()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def surprise(p: np.ndarray) -> np.ndarray:
    return np.asarray(-(p * np.log(p)).sum(-1))


def tent(p: np.ndarray) -> float:
    return float(surprise(p).mean())


def shot(p: np.ndarray) -> float:
    return float(surprise(p).mean() - surprise(p.mean(0)))


def eata(p: np.ndarray) -> float:
    limit = 0.4 * math.log(CLASSES)
    sure = surprise(p)[surprise(p) < limit]
    return float((np.exp(limit - sure) * sure).mean()) if len(sure) else 0.0


def lee(p: np.ndarray) -> float:
    sure = p.max(1)
    return float(np.where(sure >= 0.95, -np.log(sure), 0).mean())


def mixmatch(p: np.ndarray) -> float:
    sharp = p**2 / (p**2).sum(1, keepdims=True)  # MixMatch, arXiv 1905.02249, equation 7, T = 1/2
    return float(-(sharp * np.log(p)).sum(1).mean())


FORMULAS: dict[str, tuple[Objective, Callable[[np.ndarray], float]]] = {
    "TENT": (Entropy(diversity=0.0), tent),
    "SHOT": (Entropy(diversity=1.0), shot),
    "EATA": (EntropyFiltered(), eata),
    "Lee": (PseudoLabel(view="none"), lee),
    "sharpened": (Consistency(views=0, view="none", temperature=0.5), mixmatch),
    "self": (Consistency(views=0, temperature=1.0), tent),  # the teacher is the network as yet: H(p, p) = H(p)
}


@pytest.mark.parametrize("name", FORMULAS)
@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.1, 8))
def test_a_loss_is_what_its_paper_says(name: str, seed: int, scale: float) -> None:
    objective, formula = FORMULAS[name]
    model, images = linear(seed, scale), pictures(seed)
    batch, learners = a_batch(model, images)
    objective.begin(learners)
    [found] = objective.losses(batch).each.tolist()
    assert found == pytest.approx(formula(probabilities(model, images)), abs=1e-10)


def test_labels_are_cross_entropy_and_mixed_takes_those_that_there_are() -> None:
    model, images = linear(3), pictures(3)
    labels = torch.tensor([0, 3, NO_LABEL, NO_LABEL, 1, NO_LABEL])
    p = probabilities(model, images)
    known = -np.log([p[0, 0], p[1, 3], p[4, 1]]).mean()
    [found] = Mixed(weight=0.5, rest=Entropy()).losses(a_batch(model, images, labels)[0]).each.tolist()
    assert found == pytest.approx(known + 0.5 * shot(p), abs=1e-10)
    [found] = Labels().losses(a_batch(model, images, labels.clamp_min(2))[0]).each.tolist()
    assert found == pytest.approx(-np.log(p[range(6), labels.clamp_min(2)]).mean(), abs=1e-10)


def test_a_redundant_sample_is_left_out_by_the_moving_mean_of_those_in_use() -> None:
    """EATA's code as it stands, batch after batch."""
    model, mean = linear(5, 8.0), None
    batches = [pictures(seed) for seed in range(6)]
    device, limit = torch.device("cpu"), 0.4 * math.log(CLASSES)
    rngs = [stream(0, "b")]
    feed = Feed([torch.cat(batches)], [torch.zeros(36).long()], rngs, batch_size=6, augment="none", device=device)
    learners, objective = Learners(Alone(model), rngs), EntropyFiltered(redundancy=0.6)
    left_out = 0
    for number, images in enumerate(batches):
        batch = Batch(learners, feed, [0], [torch.arange(6 * number, 6 * number + 6)], "fp32", torch.float64)
        p = probabilities(model, images)
        use = surprise(p) < limit
        if mean is not None:
            cosine = p @ mean / np.linalg.norm(p, axis=1) / np.linalg.norm(mean)
            left_out += int((use & (cosine >= 0.6)).sum())
            use &= cosine < 0.6
        found = objective.losses(batch).guesses
        assert found is not None and found.used[:, 0].tolist() == use.tolist()
        if use.any():
            mean = p[use].mean(0) if mean is None else 0.9 * mean + 0.1 * p[use].mean(0)
    assert left_out > 3


def test_sharpness_takes_the_gradient_a_step_uphill() -> None:
    model, images, radius = linear(7, 6.0), pictures(7, 20), 0.3
    objective = EntropyFiltered(redundancy=1.0, weighted=False, sharpness=radius)
    batch, _ = a_batch(model, images)
    objective.gradients(batch)
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]

    def sure(at: nn.Module, among: Tensor) -> tuple[Tensor, Tensor]:
        p = at(to_input(images).double()).softmax(1)
        each = -(p * p.log()).sum(1)
        use = among & (each < 0.4 * math.log(CLASSES))
        return each[use].mean(), use

    other = linear(7, 6.0)
    loss, use = sure(other, torch.ones(20, dtype=torch.bool))
    grads = torch.autograd.grad(loss, list(other.parameters()))
    norm = torch.sqrt(sum((g**2).sum() for g in grads))  # type: ignore[arg-type]
    with torch.no_grad():
        for p, g in zip(other.parameters(), grads, strict=True):
            p.add_(radius * g / norm)
    loss, still = sure(other, use)
    assert still.any()
    expected = torch.autograd.grad(loss, list(other.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    for p, q in zip(model.parameters(), linear(7, 6.0).parameters(), strict=True):
        assert torch.equal(p, q)  # it stands where it stood


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
def test_a_teacher_is_the_moving_mean_of_the_network(decay: float) -> None:
    """Four steps by hand: plain SGD on the cross-entropy with the teacher's sure predictions."""
    images, threshold = pictures(9, 12), 0.5
    model, student, teacher = linear(9), linear(9), linear(9)
    objective = PseudoLabel(threshold=threshold, decay=decay, view="none")
    recipe = Recipe(
        lr=0.5, momentum=0, weight_decay=0, clip_norm=math.inf, batch_size=6, augment="none", shuffled=False
    )
    train([model], [Task(images, torch.full((12,), NO_LABEL), 4, stream(0, "t"))], recipe=recipe, objective=objective)
    for step in range(4):
        x = to_input(images.split(6)[step % 2]).double()
        q = (teacher if decay else student)(x).softmax(1).detach()
        log_p = student(x).log_softmax(1)
        each = -log_p[range(6), q.argmax(1)]
        loss = (each * (q.max(1).values >= threshold)).mean()
        grads = torch.autograd.grad(loss, list(student.parameters()))
        with torch.no_grad():
            for w, t, g in zip(student.parameters(), teacher.parameters(), grads, strict=True):
                w.sub_(0.5 * g)
                t.copy_(decay * t + (1 - decay) * w)
    for w, v in zip(model.parameters(), student.parameters(), strict=True):
        assert torch.allclose(w, v, atol=1e-10)


@pytest.mark.parametrize("cameras", [1, 2])
def test_in_bf16_too_a_network_and_its_teacher_each_answer_with_their_own_weights(cameras: int) -> None:
    models = [linear(k).float() for k in range(cameras)]
    side = Alone(models[0]) if cameras == 1 else Stack(models)
    learners = Learners(side, [stream(k, "both") for k in range(cameras)])
    learners.teachers.begin(teacher=True)
    with torch.no_grad():
        for p, _ in side.trained():
            p.mul_(-2)
    x = to_input(pictures(3)).repeat(1, cameras, 1, 1)
    with torch.no_grad(), autocast("bf16"):
        taught, own = learners.teachers.predict(x, taught=True), learners.logits(x)
    with torch.no_grad(), autocast("bf16"):
        assert torch.equal(learners.logits(x), own) and not torch.equal(own, taught)
    with torch.no_grad(), autocast("bf16"):
        assert torch.equal(learners.teachers.predict(x, taught=True), taught)


def test_what_is_restored_is_where_the_update_began_and_as_much_as_was_asked() -> None:
    model, start = linear(1), linear(1)
    learners = Learners(Alone(model), [stream(0, "restored")])
    learners.teachers.begin(start=True)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    learners.teachers.restore(0.25)
    pairs = list(zip(model.parameters(), start.parameters(), strict=True))
    back = torch.cat([(p == q).flatten() for p, q in pairs])
    assert all(bool(((p == q) | (p == q + 1)).all()) for p, q in pairs)
    assert 0.15 < back.double().mean() < 0.35


def test_a_look_at_a_network_leaves_no_trace_in_its_statistics() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for side, cameras in ((Alone(net), 1), (Stack([copy.deepcopy(net), copy.deepcopy(net)]), 2)):
        learners = Learners(side, [stream(k, "s") for k in range(cameras)])
        learners.teachers.begin(teacher=True)
        before = copy.deepcopy(side.network.state_dict())
        x = torch.randn((5, 3 * cameras, 4, 4), generator=torch_stream(0, "x"))
        assert torch.equal(learners.teachers.predict(x, taught=False), learners.teachers.predict(x, taught=True))
        assert all(torch.equal(before[name], now) for name, now in side.network.state_dict().items())
        learners.logits(x)
        assert any(not torch.equal(before[name], now) for name, now in side.network.state_dict().items())


def test_nor_in_those_of_a_norm_of_each_image() -> None:
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).train()
    learners, before = Learners(Alone(network), [stream(0, "a")]), copy.deepcopy(dict(norm.named_buffers()))
    learners.teachers.predict(torch.randn(4, 3, 8, 8, generator=torch_stream(0, "x")), taught=False)
    assert all(torch.equal(now, before[name]) for name, now in norm.named_buffers())


@pytest.mark.parametrize(
    ("entropy", "share", "collapsed"),
    [
        (0.5, 0.3, False),
        (0.05, 0.3, True),
        (0.5, 0.85, True),
        (0.7, 0.3, True),
        (math.nan, 0.3, True),
        (0.5, math.nan, True),
    ],
)
def test_a_camera_has_collapsed_outside_the_bounds(entropy: float, share: float, collapsed: bool) -> None:
    objective = Entropy(least_entropy=0.1, most_entropy=0.6, largest_class=0.8)
    shares = torch.tensor([share, 1 - share, 0.0])
    assert objective.collapsed(entropy, shares) is collapsed
    assert Mixed(rest=objective).collapsed(entropy, shares) is collapsed
    assert not Labels().collapsed(entropy, shares)


def test_settings_out_of_range_are_refused() -> None:
    wrong: list[Callable[[], Any]] = [
        lambda: Entropy(diversity=-1.0),
        lambda: PseudoLabel(threshold=1.0),
        lambda: Consistency(decay=1.0),
        lambda: EntropyFiltered(margin=0.0),
        lambda: Mixed(whose="nobody"),
        lambda: Entropy(least_entropy=0.5, most_entropy=0.5),
    ]
    for make in wrong:
        with pytest.raises(ConfigError):
            make()
