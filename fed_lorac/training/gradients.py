"""Gradients at the weights as they are: how much each layer would have to move. Knows a network, a task and an
objective; not which layers are chosen, nor steps."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fed_lorac.adapters.strided import strides_unfolded
from fed_lorac.training.batches import Feed
from fed_lorac.training.blocks import Alone, still
from fed_lorac.training.objectives.objective import Batch, Learners, Objective
from fed_lorac.training.recipe import Recipe, Task

__all__ = ["mean_gradients", "relative_gradient_norms"]


def relative_gradient_norms(
    model: nn.Module, layers: tuple[str, ...], task: Task, *, recipe: Recipe, objective: Objective
) -> tuple[Float[Tensor, " layers"], float]:
    """Each layer's ||g|| / ||W|| (arXiv 2210.11466), and the mean loss, as `mean_gradients` has them. A weight of zeros
    has norm 0."""
    gradients, loss = mean_gradients(model, layers, task, recipe=recipe, objective=objective)
    norms = [_relative(g, model.get_parameter(f"{name}.weight")) for name, g in gradients.items()]
    return torch.tensor(norms), loss


def mean_gradients(
    model: nn.Module, layers: tuple[str, ...], task: Task, *, recipe: Recipe, objective: Objective
) -> tuple[dict[str, Tensor], float]:
    """Layer -> the gradient of its weight, float32, and the mean loss: of the objective's loss over the task's images
    as its steps draw them, each image as much as any other.

    The network is used as it stands (its modes) and left with these weights alone requiring a gradient.
    """
    model.requires_grad_(False)
    weights = [model.get_parameter(f"{name}.weight").requires_grad_() for name in layers]
    learners = Learners(side := Alone(model), [task.rng])
    feed = Feed(
        [task.images],
        [task.labels],
        [task.rng],
        batch_size=recipe.batch_size,
        augment=recipe.augment,
        shuffled=recipe.shuffled,
        normalization=recipe.normalization,
        device=weights[0].device,
    )
    sums, seen, loss = [torch.zeros_like(w, dtype=torch.float32) for w in weights], 0, 0.0
    with still([model]), strides_unfolded(model):
        objective.begin(learners)
        for _ in range(task.steps):
            drawn = feed.drawn(0)
            side.clear()
            batch = Batch(learners, feed, [0], [drawn], recipe.precision, weights[0].dtype)
            loss += len(drawn) * float(objective.gradients(batch).each.detach())
            seen += len(drawn)
            for total, weight in zip(sums, weights, strict=True):
                if weight.grad is not None:  # an objective may leave a whole batch out
                    total.add_(weight.grad, alpha=len(drawn))
        side.clear()
    means = (total / max(1, seen) for total in sums)
    return dict(zip(layers, means, strict=True)), loss / max(1, seen)


def _relative(gradient: Tensor, weight: Tensor) -> float:
    size = float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float32))
    return float(torch.linalg.vector_norm(gradient)) / size if size else 0.0
