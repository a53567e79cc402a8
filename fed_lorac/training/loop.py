"""Training: one loop for one network or many side by side. Knows models, a recipe and batches; not cameras' lives,
rounds or frames."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fed_lorac.adapters.fold_bn import fixed_norms_folded
from fed_lorac.adapters.plain import RATES_NOTE
from fed_lorac.adapters.strided import strides_unfolded
from fed_lorac.errors import DataError, RunError
from fed_lorac.training.batches import Feed
from fed_lorac.training.blocks import Alone, Stack, check_equal, row_norms, still, why_apart
from fed_lorac.training.objectives.guessed import GuessLog
from fed_lorac.training.objectives.objective import Batch, Labels, Learners, Objective
from fed_lorac.training.recipe import Outcome, Recipe, Task

__all__ = ["Sgd", "cosine", "train", "warm_cosine"]

LABELS = Labels()


def cosine(step: int, steps: int) -> float:
    """The factor on the learning rate at `step` of `steps`: 1 falling to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def warm_cosine(step: int, steps: int, warm_share: float = 0.1) -> float:
    """A linear rise over the first `warm_share` of the steps, then `cosine` over the rest."""
    warm = max(1, round(warm_share * steps))
    return (step + 1) / warm if step < warm else cosine(step - warm, steps - warm)


def _decays(trained: Sequence[Tensor], weight_decay: float) -> list[float]:
    return [weight_decay if p.ndim > 1 else 0.0 for p in trained]


def _lr_factors(model: nn.Module) -> list[float]:
    """What the learning rate is multiplied by for each trained parameter; empty: by 1 for all."""
    factors = getattr(model, RATES_NOTE, {})
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return [factors.get(name, 1.0) for name in trained] if factors else []


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
    which stay off: `blocks.still`), end trained, and are of one
    architecture with one set of trainable parameters. Together they are a block: several run side by side as one
    network (`fed_lorac.training.blocks`) and agree with training one at a time to rounding; who has taken all of its
    steps leaves, and batches of unequal size are run apart, so nothing is ever padded. Networks that cannot stand side
    by side are trained one after another. What layers that are not trained make of an image is computed once, where no
    bit tells (`training.kept`). The optimizer is a fresh SGD; `on_step(step, mean loss of those at work)` is called
    after every step and, on a GPU, waits for it.

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
    block.keep(like)
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
            _decays(trained, recipe.weight_decay),
            recipe.momentum,
            recipe.nesterov,
            recipe.clip_norm,
            recipe.prox_mu,
            _lr_factors(models[0]),
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

    def keep(self, like: nn.Module) -> None:
        """Compute what no training touches once, where images come again as they were; `like` is one of the networks.
        Where every batch norm looks at the batch, nothing is worth it."""
        again = any(task.steps * self.recipe.batch_size > len(task.labels) for task in self.tasks)
        in_batches = {norm.training for norm in like.modules() if isinstance(norm, _BatchNorm)} == {True}
        if again and self.recipe.augment == "none" and not in_batches:
            from fed_lorac.training.kept import kept  # noqa: PLC0415  (most runs train the first layer)

            self.learners.kept = kept(self.learners, like, self.feed, self.tasks, self.recipe)

    def dismiss(self, step: int | None) -> None:
        """Remove the cameras that have taken all their steps (all cameras, where `step` is None) from the stack."""
        done = {k for k in self.live if step is None or self.tasks[k].steps <= step}
        if not done:
            return
        for place, k in enumerate(self.live):
            if k in done:
                self.side.leave(place)
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


@dataclass(eq=False)
class Sgd:
    """The optimizer of networks side by side: tensors are (N, ...), a row for each camera, and no camera's step depends
    on another's.

    Momentum (Nesterov's or not), decay and clipping as torch.optim.SGD and clip_grad_norm_ do them, row by row.

    `prox`: FedProx's mu (arXiv 1812.06127, equation 2): the loss has mu/2 ||w - w_0||^2 besides, w_0 being where each
    tensor was at the first step. `lr_factors`: what the learning rate is multiplied by for each tensor; empty: 1.
    """

    decays: Sequence[float]
    momentum: float
    nesterov: bool
    clip_norm: float
    prox: float = 0.0
    lr_factors: Sequence[float] = ()

    def __post_init__(self) -> None:
        self._moving: list[Tensor | None] = [None] * len(self.decays)
        self._starts: list[Tensor | None] = [None] * len(self.decays)

    @torch.no_grad()
    def step(self, trained: Sequence[tuple[Tensor, Tensor | None]], lrs: Sequence[float]) -> None:
        """Move every tensor that has a gradient; `lrs`: one for each row. Gradients are used up."""
        live = [(place, tensor, grad) for place, (tensor, grad) in enumerate(trained) if grad is not None]
        if not live:
            return
        tensors, grads = [tensor for _, tensor, _ in live], [grad for _, _, grad in live]
        if self.prox:
            self._pull(live)
        if not math.isinf(self.clip_norm):
            _clip(grads, self.clip_norm)
        for decay in sorted({self.decays[place] for place, _, _ in live} - {0.0}):
            decayed = [(grad, tensor) for place, tensor, grad in live if self.decays[place] == decay]
            torch._foreach_add_([grad for grad, _ in decayed], [tensor for _, tensor in decayed], alpha=decay)
        if self.momentum:
            grads = self._moved([place for place, _, _ in live], grads)
        if self.lr_factors:  # not in place: those may be the momentum
            grads = list(torch._foreach_mul(grads, [self.lr_factors[place] for place, _, _ in live]))
        if len(set(lrs)) == 1:
            torch._foreach_add_(tensors, grads, alpha=-lrs[0])
        else:
            rates = torch.tensor(lrs, dtype=tensors[0].dtype, device=tensors[0].device)
            torch._foreach_sub_(tensors, torch._foreach_mul(grads, [_rows(rates, g) for g in grads]))

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        for kept in (self._moving, self._starts):
            kept[:] = [None if t is None else t.index_select(0, rows.to(t.device)) for t in kept]

    def _pull(self, live: Sequence[tuple[int, Tensor, Tensor]]) -> None:
        """Add mu (w - w_0) to the gradients."""
        for place, tensor, grad in live:
            if (start := self._starts[place]) is None:
                self._starts[place] = tensor.clone()  # here w is w_0
            else:
                grad.add_(tensor - start, alpha=self.prox)

    def _moved(self, places: Sequence[int], grads: list[Tensor]) -> list[Tensor]:
        for place, grad in zip(places, grads, strict=True):
            if self._moving[place] is None:
                self._moving[place] = torch.zeros_like(grad)
        moving = [m for place in places if (m := self._moving[place]) is not None]
        torch._foreach_mul_(moving, self.momentum)
        torch._foreach_add_(moving, grads)
        if self.nesterov:
            torch._foreach_add_(grads, moving, alpha=self.momentum)
            return grads
        return moving


def _clip(grads: list[Tensor], clip_norm: float) -> None:
    """Scale each row's gradient, all tensors taken together, down to `clip_norm` where its norm is larger."""
    factor = (clip_norm / (row_norms(grads) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(grads, [_rows(factor, g) for g in grads])


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
