"""The laws of an objective: cameras side by side learn as alone, what is drawn repeats, and labels stay unseen."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fed_lorac.errors import FedLoracError, one_line
from fed_lorac.runtime.origin import origin_of
from fed_lorac.seeds import stream
from fed_lorac.testing.laws import small_model, told, under
from fed_lorac.training.loop import train
from fed_lorac.training.objectives.objective import NO_LABEL, Objective
from fed_lorac.training.recipe import Outcome, Recipe, Task

__all__ = ["check_objective"]

_SIZES = ((9, 3), (7, 2), (8, 3))  # images and steps: batches of 4 and smaller ones, who is done early leaves
_RECIPE = Recipe(lr=0.01, batch_size=4, augment="reflect_flip")
_SURE = 20.0  # the classifier's weight times this: some predictions are sure, as a trained network's are


def check_objective(objective: Objective, model: nn.Module | None = None, *, image_size: int = 16) -> None:
    """Hold an objective to its laws, by training copies of a network in float64 (None: a small ResNet-8).

    Args:
        objective: with the settings to be checked.
        model: takes images (N, 3, image_size, image_size); every parameter is trained.
        image_size: pixels a side.

    Raises:
        AssertionError: a law is broken; it says which, and what came.
    """
    _Checks(objective, copy.deepcopy(model).double() if model is not None else _sure_model(), image_size).all()


def _sure_model() -> nn.Module:
    model = small_model()
    classifier = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        classifier.weight.mul_(_SURE)
    return model


class _Checks:
    def __init__(self, objective: Objective, base: nn.Module, image_size: int) -> None:
        self.objective, self.base, self.size = objective, base.train(), image_size

    def law(self, text: str, holds: object, came: object = "") -> None:
        under(told(self.objective, text), holds, came)

    def all(self) -> None:
        """Every law, the simplest first."""
        self.law("source must name where it is from", origin_of(type(self.objective)))
        self.law("an objective must be a value, equal to its copies", copy.deepcopy(self.objective) == self.objective)
        models, outcomes = self.trained(self.tasks())
        self.losses_are_finite_and_move_the_network(models, outcomes)
        self.guesses_are_of_the_batch(outcomes)
        again, _ = self.trained(self.tasks())
        self.law("equal streams must train equal networks", self.apart(models, again) == 0)
        alone = [self.trained([task]) for task in self.tasks()]
        off = self.apart(models, [model for [model], _ in alone])
        self.law("a camera must learn side by side what it learns alone", off < 1e-8, f"{off:.2g} off")
        if not self.objective.uses_labels:
            other, _ = self.trained(self.tasks(label=1))
            self.law("an objective that uses no labels must not see them", self.apart(models, other) == 0)

    def tasks(self, label: int = NO_LABEL) -> list[Task]:
        """New ones, of the same images and streams; labels are drawn where the objective uses them."""
        made = []
        for camera, (count, steps) in enumerate(_SIZES):
            draw = stream(0, "images", camera)
            images = torch.from_numpy(draw.integers(0, 256, (count, self.size, self.size, 3), "uint8"))
            labels = torch.full((count,), label)
            if self.objective.uses_labels:
                labels = torch.from_numpy(draw.integers(0, 3, count))
            made.append(Task(images, labels, steps, stream(1, "camera", camera)))
        return made

    def trained(self, tasks: list[Task]) -> tuple[list[nn.Module], list[Outcome]]:
        """Copies of the network, each trained on its task, side by side."""
        models = [copy.deepcopy(self.base) for _ in tasks]
        how: dict[str, Any] = {"recipe": _RECIPE, "objective": self.objective}
        try:
            return models, train(models, tasks, **how)
        except (AttributeError, FedLoracError, LookupError, RuntimeError, TypeError, ValueError) as error:
            self.law("a batch of several cameras must give a loss for each", False, one_line(error))
            raise

    def losses_are_finite_and_move_the_network(self, models: list[nn.Module], outcomes: list[Outcome]) -> None:
        losses = [outcome.mean_loss for outcome in outcomes]
        self.law("every loss must be finite", bool(torch.tensor(losses).isfinite().all()), losses)
        moved = self.apart(models, [self.base] * len(models))
        self.law("a loss must move the network", moved > 0)

    def guesses_are_of_the_batch(self, outcomes: list[Outcome]) -> None:
        for (count, _), outcome in zip(_SIZES, outcomes, strict=True):
            if (found := outcome.guessed) is None:
                continue
            self.law("each image seen must have a guess", len(found.images) == outcome.images_seen, len(found.images))
            self.law("guesses must be of the camera's images", int(found.images.max()) < count)
            self.law("used must be true or false", found.used.dtype == torch.bool, found.used.dtype)

    def apart(self, some: list[nn.Module], others: list[nn.Module]) -> float:
        """The largest difference between networks' parameters."""
        pairs = zip(some, others, strict=True)
        return max(float((p - q).abs().max()) for a, b in pairs for p, q in zip(*map(_parameters, (a, b)), strict=True))


def _parameters(model: nn.Module) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]
