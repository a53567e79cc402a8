"""Laws of the layers that a server chooses: norms as autograd has them, and never more bytes than the budget."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as some

from fed_lorac.adapters.choice import CHOICE_KEY, Budget, choice_state, chosen_in
from fed_lorac.errors import ConfigError
from fed_lorac.models import build
from fed_lorac.seeds import torch_stream
from fed_lorac.training.batches import to_input
from fed_lorac.training.gradients import relative_gradient_norms
from fed_lorac.training.objectives.objective import Labels
from fed_lorac.training.recipe import Recipe, Task

LAYERS = ("a.conv1", "a.conv2", "b.conv1", "b.conv2", "c")


def budget(most: int, numbers: tuple[int, ...] = (4, 40, 8, 80, 2), beside: int = 10) -> Budget:
    template = {f"{name}.B": (count,) for name, count in zip(LAYERS, numbers, strict=True)} | {"fc.weight": (beside,)}
    return Budget(most, LAYERS, lambda shapes: sum(4 * math.prod(shape) for shape in shapes.values()), template)


@given(
    norms=some.lists(some.floats(0, 1e6, width=32), min_size=5, max_size=5),
    numbers=some.lists(some.integers(1, 50), min_size=5, max_size=5),
    spare=some.integers(0, 600),
)
def test_the_choice_fits_and_leaves_out_no_layer_that_would_still_fit(norms, numbers, spare) -> None:
    least = 4 * (10 + min(numbers))
    one = budget(least + spare, tuple(numbers))
    chosen = one.choose(torch.tensor(norms))
    assert chosen and one.needed_bytes(chosen) <= least + spare
    for name in set(LAYERS) - set(chosen):
        assert one.needed_bytes([*chosen, name]) > least + spare
    assert chosen_in(LAYERS, choice_state(LAYERS, chosen)) == chosen


def test_layers_are_taken_from_the_largest_norm_on() -> None:
    norms = torch.tensor([0.1, 3.0, 0.2, 2.0, 1.0])
    assert budget(10_000).choose(norms) == LAYERS
    assert budget(4 * (10 + 40)).choose(norms) == ("a.conv2",)
    assert budget(4 * (10 + 40 + 2)).choose(norms) == ("a.conv2", "c")  # b.conv2 comes next and does not fit
    assert budget(4 * (10 + 8)).choose(torch.ones(5)) == ("a.conv1", "c")  # of equals the first


def test_a_budget_that_holds_not_one_layer_is_refused_with_what_one_takes() -> None:
    with pytest.raises(ConfigError, match=r"got 47: with the smallest, c, .* is 48 bytes, of which 40 are not"):
        budget(47)


def test_a_state_without_a_choice_says_so() -> None:
    assert chosen_in(LAYERS, {"fc.weight": torch.zeros(1)}) == ()
    assert list(choice_state(LAYERS, ())) == [CHOICE_KEY]


def test_norms_are_those_of_the_whole_gradient_over_the_weights() -> None:
    """By autograd on all images at once, in float64; 25 images in batches of 10 count each alike."""
    model = build("resnet8", width=4, generator=torch_stream(0, "model")).eval()
    images = torch.randint(0, 256, (25, 8, 8, 3), generator=torch_stream(0, "images"), dtype=torch.uint8)
    labels = torch.arange(25) % 10
    layers = ("layer1.0.conv2", "layer2.0.downsample.0", "layer3.0.conv1")
    exact = copy.deepcopy(model).double()
    weights = [exact.get_parameter(f"{name}.weight") for name in layers]
    loss = F.cross_entropy(exact(to_input(images, torch.device("cpu")).double()), labels)
    expected = [g.norm() / w.norm() for g, w in zip(torch.autograd.grad(loss, weights), weights, strict=True)]
    task = Task(images, labels, 3, np.random.default_rng(0))
    recipe = Recipe(batch_size=10, augment="none")
    norms, mean = relative_gradient_norms(model, layers, task, recipe=recipe, objective=Labels())
    torch.testing.assert_close(norms, torch.stack(expected).detach().float(), rtol=1e-4, atol=1e-7)
    assert mean == pytest.approx(float(loss.detach()), rel=1e-5)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {f"{name}.weight" for name in layers}


def test_a_weight_of_zeros_has_no_relative_norm() -> None:
    model = build("resnet8", width=4, generator=torch_stream(0, "model")).eval()
    torch.nn.init.zeros_(model.get_parameter("layer1.0.conv2.weight"))
    images = torch.zeros((4, 8, 8, 3), dtype=torch.uint8)
    task = Task(images, torch.zeros(4, dtype=torch.int64), 1, np.random.default_rng(0))
    norms, _ = relative_gradient_norms(
        model, ("layer1.0.conv2", "layer3.0.conv2"), task, recipe=Recipe(augment="none"), objective=Labels()
    )
    assert norms[0] == 0 < norms[1] and norms.isfinite().all()
