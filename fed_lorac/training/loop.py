"""Training: one loop for one network or many side by side. Knows models, a recipe and batches; not cameras' lives,
rounds or frames."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from fed_lorac.adapters.fold_bn import fixed_norms_folded
from fed_lorac.adapters.strided import strides_unfolded
from fed_lorac.errors import DataError, RunError
from fed_lorac.runtime.normalization import CIFAR10, Normalization
from fed_lorac.runtime.precision import Precision
from fed_lorac.training.batches import Augment, Feed
from fed_lorac.training.blocks import Alone, Sgd, Stack, check_equal, why_apart
from fed_lorac.training.objectives.batch import Batch
from fed_lorac.training.objectives.guessed import Guessed, GuessLog
from fed_lorac.training.objectives.labels import Labels
from fed_lorac.training.objectives.learners import Learners
from fed_lorac.training.objectives.objective import Objective
from fed_lorac.training.still import still

__all__ = ["Outcome", "Recipe", "Task", "cosine", "train", "warm_cosine"]


LABELS = Labels()


@dataclass(frozen=True)
class Recipe:
    """How steps are taken; defaults are LoRA-C's (arXiv 2410.16954): SGD, decay on matrices, clipping at 5."""

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    batch_size: int = 128
    augment: Augment = "crop_flip"
    precision: Precision = "fp32"
    prox_mu: float = 0.0
    shuffled: bool = True
    normalization: Normalization = CIFAR10


@dataclass(frozen=True, eq=False)
class Task:
    """One camera's share: its images, the labels that it has (`NO_LABEL` where it has none), how many steps it takes on
    them, and the stream it draws from."""

    images: UInt8[Tensor, "n h w 3"]
    labels: Int64[Tensor, " n"]
    steps: int
    rng: np.random.Generator


@dataclass(frozen=True)
class Outcome:
    """What training did: images seen (with repeats), steps taken, mean loss over them, and what was guessed on the way,
    where the objective guesses."""

    images_seen: int
    steps: int
    mean_loss: float
    guessed: Guessed | None = None


def cosine(step: int, steps: int) -> float:
    """The factor on the learning rate at `step` of `steps`: 1 falling to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def warm_cosine(step: int, steps: int, warm_share: float = 0.1) -> float:
    """A linear rise over the first `warm_share` of the steps, then `cosine` over the rest."""
    warm = max(1, round(warm_share * steps))
    return (step + 1) / warm if step < warm else cosine(step - warm, steps - warm)


def _decays(trained: Sequence[Tensor], weight_decay: float) -> list[float]:
    return [weight_decay if p.ndim > 1 else 0.0 for p in trained]


def train(
    models: Sequence[nn.Module],
    tasks: Sequence[Task],
    *,
    recipe: Recipe,
    objective: Objective = LABELS,
    lr_factor: Callable[[int, int], float] = lambda step, steps: 1.0,
    on_step: Callable[[int, float], None] | None = None,
) -> list[Outcome]:
    """Train models[k] on tasks[k], each as if it were alone: shuffled epochs, crops, clipping, momentum of its own.

    What each step lowers is the objective's loss, by default cross-entropy with the tasks' labels.

    Models are used as they stand (every module's mode, trainable parameters, device; but for dropout and its like,
    which stay off: `training.still`), end trained, and are of one
    architecture with one set of trainable parameters. Together they are a block: several run side by side as one
    network (`fed_lorac.training.blocks`) and agree with training one at a time to rounding; who has taken all of its
    steps leaves, and batches of unequal size are run apart, so nothing is ever padded. Networks that cannot stand side
    by side are trained one after another. The optimizer is a fresh SGD; `on_step(step, mean loss of those at work)` is
    called after every step and, on a GPU, waits for it.

    Raises:
        RunError: numbers of models and tasks that differ, or models that do.
        DataError: a task with steps to take and no images.
    """
    _check(models, tasks)
    if len(models) > 1 and why_apart(models[0]):
        alone = [([m], [t]) for m, t in zip(models, tasks, strict=True)]
        more: dict[str, Any] = {"recipe": recipe, "objective": objective, "lr_factor": lr_factor, "on_step": on_step}
        return [train(m, t, **more)[0] for m, t in alone]
    with still(models):
        return _trained(_Block(models, tasks, recipe, objective), models[0], lr_factor, on_step)


def _trained(
    block: "_Block",
    like: nn.Module,
    lr_factor: Callable[[int, int], float],
    on_step: Callable[[int, float], None] | None,
) -> list[Outcome]:
    """A block's steps, all of them; `like` is one of its networks."""
    network, tasks = block.side.network, block.tasks
    with fixed_norms_folded(network, like), strides_unfolded(network):
        for step in range(max(task.steps for task in tasks)):
            block.dismiss(step)
            loss = block.step(lr_factor, step)
            if on_step is not None:
                on_step(step, float(loss.mean()))
        block.dismiss(None)
        block.side.clear()
    return block.outcomes()


class _Block:
    """A block in the middle of its training. `live` are the cameras at work, in the order of their places."""

    def __init__(
        self, models: Sequence[nn.Module], tasks: Sequence[Task], recipe: Recipe, objective: Objective
    ) -> None:
        self.tasks, self.recipe, self.objective, self.live = tasks, recipe, objective, list(range(len(models)))
        self.side = Alone(models[0]) if len(models) == 1 else Stack(models)
        trained = [p for p in models[0].parameters() if p.requires_grad]
        self.sgd = Sgd(
            _decays(trained, recipe.weight_decay), recipe.momentum, recipe.nesterov, recipe.clip_norm, recipe.prox_mu
        )
        self.like = trained[0]
        self.feed = Feed(
            [task.images for task in tasks],
            [task.labels for task in tasks],
            [task.rng for task in tasks],
            batch_size=recipe.batch_size,
            augment=recipe.augment,
            shuffled=recipe.shuffled,
            normalization=recipe.normalization,
            device=self.like.device,
        )
        self.learners = Learners(self.side, [task.rng for task in tasks])
        self.log: GuessLog | None = None  # until something is guessed
        objective.begin(self.learners)
        self.seen, self.losses = [0] * len(tasks), torch.zeros(len(tasks), dtype=torch.float64, device=self.like.device)

    def dismiss(self, step: int | None) -> None:
        """Remove the cameras that have taken all their steps (all cameras, where `step` is None) from the stack."""
        done = {k for k in self.live if step is None or self.tasks[k].steps <= step}
        if not done:
            return
        for place, k in enumerate(self.live):
            if k in done:
                self.side.leave(place, self.tasks[k].steps)
        stay = [place for place, k in enumerate(self.live) if k not in done]
        if stay:
            self.side.keep(stay)
            self.sgd.keep(torch.tensor(stay))
            self.learners.keep(stay)
        self.live = [self.live[place] for place in stay]

    def step(self, lr_factor: Callable[[int, int], float], step: int) -> Float[Tensor, " live"]:
        """One step of everyone at work; their losses."""
        drawn = [self.feed.drawn(k) for k in self.live]
        losses = torch.zeros(len(self.live), dtype=torch.float64, device=self.like.device)
        self.side.clear()
        for size in sorted({len(batch) for batch in drawn}, reverse=True):
            places = [place for place, batch in enumerate(drawn) if len(batch) == size]
            whole = len(places) == len(drawn)
            self.side.part(None if whole else places)
            loss = self._gradients(places, [drawn[place] for place in places])
            losses[slice(None) if whole else places] = loss.double()
        lrs = [self.recipe.lr * lr_factor(step, self.tasks[k].steps) for k in self.live]
        self.sgd.step(self.side.trained(), lrs)
        self.objective.after_step(self.learners)
        self.losses[self.live] += losses
        for k, batch in zip(self.live, drawn, strict=True):
            self.seen[k] += len(batch)
        return losses

    def _gradients(self, places: Sequence[int], chosen: Sequence[Tensor]) -> Float[Tensor, " places"]:
        cameras = [self.live[place] for place in places]
        batch = Batch(self.learners, self.feed, cameras, chosen, self.recipe.precision, self.like.dtype)
        found = self.objective.gradients(batch)
        if found.guesses is not None:
            self.log = self.log or GuessLog(len(self.tasks))
            self.log.add(cameras, chosen, found.guesses)
        return found.each.detach()

    def outcomes(self) -> list[Outcome]:
        """What became of each camera's task."""
        sums = zip(self.tasks, self.losses.tolist(), strict=True)
        return [self._outcome(k, task, loss) for k, (task, loss) in enumerate(sums)]

    def _outcome(self, k: int, task: Task, loss: float) -> Outcome:
        one_pass = -(-len(task.images) // self.recipe.batch_size)
        guessed = None if self.log is None else self.log.of(k, self.objective, one_pass)
        return Outcome(self.seen[k], task.steps, loss / task.steps if task.steps else 0.0, guessed)


def _check(models: Sequence[nn.Module], tasks: Sequence[Task]) -> None:
    if not models or len(models) != len(tasks):
        raise RunError(
            f"A block has one task for each of its networks, and at least one; came {len(models)} networks and "
            f"{len(tasks)} tasks. Pair them up."
        )
    if not any(p.requires_grad for p in models[0].parameters()):
        raise RunError("Training moves the parameters that require a gradient; this network has none. Attach first.")
    if any(task.steps and not len(task.labels) for task in tasks):
        raise DataError("A step needs images; a task with steps to take has none. Give it images or no steps.")
    if len({task.images.shape[1:] for task in tasks}) > 1:
        raise RunError("Cameras that train side by side have images of one size; these differ. Train them apart.")
    check_equal(models)
