"""Batches, steps, and accuracy: the loop that cameras and pre-training share."""

import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import environment
from torch import nn

from fed_lorac.models import build
from fed_lorac.runtime.precision import resolved_precision
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.accuracy import accuracy, batch_norms, reestimate_statistics
from fed_lorac.training.batches import Augment, augmented, autocast, shuffled_batches, to_input
from fed_lorac.training.loop import cosine, train, warm_cosine
from fed_lorac.training.recipe import Recipe, Task


def photos(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(seed, "photos").integers(0, 256, (count, 32, 32, 3), np.uint8))


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 9))
def test_an_epoch_sees_every_image_once(count: int, batch_size: int, seed: int) -> None:
    batches = list(shuffled_batches(count, batch_size, stream(seed, "t")))
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_streams_of_other_names_differ_and_of_equal_names_do_not() -> None:
    draws = [stream(0, *names).integers(1 << 60) for names in (("a", "b"), ("ab",), ("a", 1), ("a", "1"), ("a", "b"))]
    assert len(set(draws[:4])) == 4
    assert draws[0] == draws[4]
    assert torch_stream(0, "a").initial_seed() != torch_stream(1, "a").initial_seed()


def test_an_augmented_image_is_a_window_of_the_padded_one() -> None:
    images = photos(20)
    for how, border in (("crop", "constant"), ("crop_flip", "constant"), ("reflect_flip", "reflect")):
        padded = np.pad(images.numpy(), ((0, 0), (4, 4), (4, 4), (0, 0)), mode=border)  # type: ignore[call-overload]
        for image, frame in zip(augmented(images, cast(Augment, how), stream(0, how)).numpy(), padded, strict=True):
            windows = [frame[i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
            mirrored = [w[:, ::-1] for w in windows] if "flip" in how else []
            assert any(np.array_equal(image, w) for w in windows + mirrored)
    assert augmented(images, "none", stream(0, "n")) is images


def test_cutout_greys_one_square_and_leaves_the_rest() -> None:
    images = photos(50)
    whole, cut = (augmented(images, how, stream(0, "c")) for how in ("crop_flip", "crop_flip_cutout"))  # type: ignore[arg-type]
    for before, after in zip(whole, cut, strict=True):
        rows, cols, _ = torch.nonzero(before != after, as_tuple=True)
        hole = after[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
        assert torch.equal(hole, torch.tensor([125, 123, 114], dtype=torch.uint8).expand_as(hole))
        assert max(hole.shape[:2]) <= 17
        assert min(hole.shape[:2]) >= 8


def test_half_the_images_are_mirrored() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).view(1, 1, 32, 1).expand(2000, 32, 32, 3).contiguous() + 100
    out = augmented(ramp, "crop_flip", stream(0, "flip"))
    mirrored = (out[:, 16, 20, 0].int() < out[:, 16, 12, 0].int()).double().mean()
    assert abs(mirrored - 0.5) < 0.05


def test_inputs_are_normalised_and_channels_last() -> None:
    x = to_input(photos(500))
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = (photos(500).double() / 255).mean((0, 1, 2)) - torch.tensor([0.4914, 0.4822, 0.4465])
    assert torch.allclose(x.double().mean((0, 2, 3)), expected / torch.tensor([0.2470, 0.2435, 0.2616]), atol=1e-4)


def test_weight_decay_is_on_matrices_and_not_on_vectors() -> None:
    stepped = []
    for decay in (0.0, 0.1):
        model = build("resnet8", width=4).double()
        before = [p.detach().clone() for p in model.parameters()]
        task = Task(photos(4), torch.arange(4), 1, stream(0, "decay"))
        train([model], [task], recipe=Recipe(lr=0.5, batch_size=4, weight_decay=decay, augment="none"))
        stepped.append([p.detach() for p in model.parameters()])
    for start, free, decayed in zip(before, *stepped, strict=True):
        torch.testing.assert_close(free - decayed, 0.5 * 0.1 * start * (start.ndim > 1), atol=1e-6, rtol=1e-4)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    factors = [warm_cosine(step, 100) for step in range(100)]
    assert factors[0] == 0.1
    assert max(factors) == factors[9] == 1.0
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[-1] < 1e-3
    assert cosine(0, 10) == 1.0
    assert cosine(5, 10) == pytest.approx(0.5)


def test_a_step_of_training_is_sgd_by_hand() -> None:
    images, labels = photos(8), torch.arange(8) % 3
    model, twin = (nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    recipe = Recipe(lr=0.01, augment="none", batch_size=8, clip_norm=float("inf"), weight_decay=0.1)
    train([model], [Task(images, labels, 1, stream(0, "s"))], recipe=recipe)
    nn.functional.cross_entropy(twin(to_input(images)), labels).backward()
    for p, decay in zip(twin.parameters(), (0.1, 0.0), strict=True):
        assert p.grad is not None
        p.data -= 0.01 * (p.grad + decay * p.data)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_a_gradient_is_clipped_to_its_largest_norm() -> None:
    images, labels = photos(8), torch.arange(8) % 3
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 3))
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    recipe = Recipe(lr=1.0, augment="none", batch_size=8, clip_norm=0.25, weight_decay=0.0)
    train([model], [Task(images, labels, 1, stream(0, "s"))], recipe=recipe)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm() == pytest.approx(0.25, rel=1e-3)


def test_training_repeats_bit_for_bit_and_learns() -> None:
    images, labels = photos(64), torch.arange(64) % 2
    images[labels == 1] //= 3  # a class that shows
    runs = []
    for _ in range(2):
        model: Any = build("resnet8", width=4, num_classes=2).train()
        (outcome,) = train([model], [Task(images, labels, 12, stream(3, "r"))], recipe=Recipe(batch_size=16))
        runs.append((model.fc.weight.detach().clone(), outcome))
    assert torch.equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert runs[0][1].images_seen == 12 * 16
    reestimate_statistics(model, images)
    assert accuracy(model, images, labels) > 0.9


def dropping() -> nn.Sequential:
    """A network with a layer that draws while it trains."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(900, 2)
        ).train()


def test_statistics_are_taken_without_dropout() -> None:
    model, images = nn.Sequential(nn.Dropout(0.5), *dropping()[:3], nn.Linear(900, 2)).train(), photos(40)
    reestimate_statistics(model, images)
    assert torch.allclose(model[2].running_mean, model[1](to_input(images)).mean((0, 2, 3)), atol=1e-5)
    assert all(module.training for module in model.modules())


def test_reestimated_statistics_are_the_mean_of_the_batches_under_this_very_model() -> None:
    model: Any = build("resnet8", width=4).eval()
    images = photos(500)
    model.bn1.running_mean.fill_(123.0)
    model.bn1.momentum = 0.3
    reestimate_statistics(model, images)
    seen = model.conv1(to_input(images))
    assert torch.allclose(model.bn1.running_mean, seen.mean((0, 2, 3)), atol=1e-4)
    halves = torch.stack([half.var((0, 2, 3)) for half in (seen[::2], seen[1::2])])
    assert torch.allclose(model.bn1.running_var, halves.mean(0), atol=1e-4)
    assert (model.training, model.bn1.momentum) == (False, 0.3)


def test_batch_norms_are_found_by_type_also_in_shortcuts() -> None:
    found = [name for name, _ in batch_norms(build("resnet8"))]
    assert "layer2.0.downsample.1" in found
    assert len(found) == 9
    assert not list(batch_norms(build("resnet8", norm="group")))


def test_accuracy_counts_the_largest_logit_and_leaves_the_mode() -> None:
    images, labels = photos(300), torch.zeros(300, dtype=torch.int64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)).train()
    weight, bias = model.parameters()
    nn.init.zeros_(weight)
    bias.data = torch.tensor([1.0, 0.0])
    labels[:100] = 1
    assert accuracy(model, images, labels) == pytest.approx(2 / 3)
    assert model.training


def test_auto_precision_is_settled_and_autocast_follows_it() -> None:
    assert resolved_precision("fp32") == "fp32"
    assert resolved_precision("auto") in ("fp32", "bf16")
    conv, x = nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)
    with autocast("bf16"):
        assert conv(x).dtype == torch.bfloat16
    with autocast("fp32"):
        assert conv(x).dtype == torch.float32


def test_auto_precision_is_that_of_the_cpu_that_pytorch_is_told_to_be() -> None:
    script = "from fed_lorac.runtime.precision import resolved_precision; print(resolved_precision('auto'))"
    told = environment(ATEN_CPU_CAPABILITY="avx2")
    done = subprocess.run([sys.executable, "-c", script], env=told, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "fp32"


def test_statistics_do_not_suffer_from_images_that_come_class_by_class() -> None:
    dark, bright = photos(300) // 8, 200 + photos(300) // 8
    model, shuffled = build("resnet8", width=4).eval(), build("resnet8", width=4).eval()
    images = torch.cat([dark, bright])
    reestimate_statistics(model, images)
    reestimate_statistics(shuffled, images[torch.from_numpy(stream(0, "order").permutation(600))])
    assert torch.allclose(model.bn1.running_var, shuffled.bn1.running_var, rtol=0.05)  # type: ignore[operator, arg-type]
