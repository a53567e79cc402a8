"""Laws of FedProx's proximal term (arXiv 1812.06127): the step of the penalised loss, for each camera by itself."""

import copy

import pytest
import torch
import torch.nn.functional as F
from second_routes import decayed_groups
from torch import nn

from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.models import build
from fed_lorac.seeds import stream, torch_stream
from fed_lorac.training.batches import shuffled_batches, to_input
from fed_lorac.training.loop import train
from fed_lorac.training.recipe import Recipe, Task


def network() -> nn.Module:
    torch.manual_seed(0)
    model = build("resnet8", width=4).train()
    LoraC(rank=1, alpha=2.0).attach(model, torch_stream(0, "adapter"))
    return model


def task(camera: int, images: int = 24, steps: int = 5) -> Task:
    draw = torch.Generator().manual_seed(camera)
    photos = torch.randint(0, 256, (images, 16, 16, 3), generator=draw, dtype=torch.uint8)
    return Task(photos, torch.randint(0, 10, (images,), generator=draw), steps, stream(camera, "prox"))


def recipe(mu: float) -> Recipe:
    return Recipe(lr=0.05, batch_size=8, clip_norm=1.0, augment="none", prox_mu=mu)


def trained(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def by_autograd(model: nn.Module, work: Task, mu: float) -> torch.Tensor:
    """The other route: the penalty as part of the loss, and torch's own SGD and clipping."""
    moved = [p for p in model.parameters() if p.requires_grad]
    start = [p.detach().clone() for p in moved]
    sgd = torch.optim.SGD(decayed_groups(model, 5e-4), lr=0.05, momentum=0.9)
    taken = 0
    while taken < work.steps:
        for batch in shuffled_batches(len(work.labels), 8, work.rng):
            if taken == work.steps:
                break
            loss = F.cross_entropy(model(to_input(work.images[batch])), work.labels[batch])
            loss = loss + mu / 2 * sum(((p - s) ** 2).sum() for p, s in zip(moved, start, strict=True))
            sgd.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(moved, 1.0)
            sgd.step()
            taken += 1
    return trained(model)


@pytest.mark.parametrize("mu", [0.0, 0.1, 3.0])
def test_a_step_is_that_of_the_penalised_loss(mu: float) -> None:
    model = network()
    other = copy.deepcopy(model)
    train([model], [task(0)], recipe=recipe(mu))
    assert torch.allclose(trained(model), by_autograd(other, task(0), mu), atol=2e-5)


def test_the_pull_keeps_a_camera_near_its_start() -> None:
    far = []
    for mu in (0.0, 1.0, 10.0):
        model = network()
        before = trained(model)
        train([model], [task(0, steps=10)], recipe=recipe(mu))
        far.append(float((trained(model) - before).norm()))
    assert far[0] > far[1] > far[2] > 0


def test_cameras_side_by_side_are_each_pulled_to_their_own_start() -> None:
    def block() -> list[nn.Module]:
        models = [network().double() for _ in range(3)]  # in float32 an input on the edge of a ReLU goes either way
        for k, model in enumerate(models):
            for p in model.parameters():
                p.data += 0.01 * k * p.requires_grad
        return models

    work = [task(k, steps=3 + k) for k in range(3)]
    together, alone = block(), block()
    train(together, work, recipe=recipe(2.0))
    for k, model in enumerate(alone):
        train([model], [task(k, steps=3 + k)], recipe=recipe(2.0))
    assert all(torch.allclose(trained(a), trained(b), rtol=0, atol=1e-12) for a, b in zip(together, alone, strict=True))
