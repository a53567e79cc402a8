"""The contract of an objective: a value with its settings, its source and its formula. Knows batches and losses; not
cameras' lives, rounds or the truth.

One's own is a frozen dataclass that gives each camera's loss on a batch. This is a whole one:

    @dataclass(frozen=True)
    class Sharpened(LabelFree):
        \"\"\"The largest probability is raised.\"\"\"

        source = "Smith et al. 2027, arXiv 2701.00001"
        power: float = setting(1.0, "what the largest probability is raised to", above=0)

        def losses(self, batch):
            p = batch.logits.float().softmax(-1)
            return self.guessed(-(p.max(-1).values ** self.power).mean(0), p)
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fed_lorac.runtime.settings import check_settings, setting
from fed_lorac.training.objectives.batch import Batch
from fed_lorac.training.objectives.learners import Learners

__all__ = ["Guesses", "LabelFree", "Losses", "Objective", "cross_entropy", "entropy", "log_probabilities"]


@dataclass(frozen=True, eq=False)
class Guesses:
    """What networks say of a batch on the way: of b images of each of n cameras, without a gradient.

    predicted: probabilities before the step; targets: the class that each image is drawn to; used: whether the image
    takes part in the step.
    """

    predicted: Float[Tensor, "b n classes"]
    targets: Int64[Tensor, "b n"]
    used: Bool[Tensor, "b n"]


@dataclass(frozen=True, eq=False)
class Losses:
    """What is lowered, one number for each camera, with a gradient; and the guesses on the way, for the ledger."""

    each: Float[Tensor, " n"]
    guesses: Guesses | None = None


@dataclass(frozen=True)
class Objective(ABC):
    """What a step lowers: a frozen dataclass whose settings are fields made by `runtime.settings.setting`.

    Raises:
        ConfigError: a setting is out of its range.
    """

    source: ClassVar[str] = ""
    """Where it is from: authors or title, and an arXiv id or doi."""
    uses_labels: ClassVar[bool] = False
    """Whether cameras that have labels show them."""

    def __post_init__(self) -> None:
        check_settings(self)

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss on its own images."""

    @property
    def radius(self) -> float:
        """How far uphill, as a distance in the trained parameters, the gradient is taken; 0: where the network is."""
        return 0.0

    def losses_uphill(self, batch: Batch, first: Losses) -> Float[Tensor, " n"]:
        """The same losses a step uphill, where `first` are those before it."""
        raise NotImplementedError

    def gradients(self, batch: Batch) -> Losses:
        """Add each camera's gradient to its parameters'."""
        with batch.arithmetic():
            found = self.losses(batch)
        if self.radius and found.each.requires_grad:
            with batch.uphill(found.each.sum(), self.radius):
                with batch.arithmetic():
                    uphill = self.losses_uphill(batch, found)
                uphill.sum().backward()
        else:
            found.each.sum().backward()
        return found

    def begin(self, learners: Learners) -> None:  # noqa: B027  (most keep nothing)
        """Before the first step of a local update."""

    def after_step(self, learners: Learners) -> None:  # noqa: B027
        """After each step."""

    def refuses(self, batch_size: int) -> str | None:
        """Why it cannot work on batches of so many images, and the remedy; None: it can."""
        return None

    def collapsed(self, entropy: float, shares: Float[Tensor, " classes"]) -> bool:
        """Whether a camera has collapsed, whose last predictions have this mean entropy, as a share of ln C, and these
        mean probabilities by class."""
        return False


@dataclass(frozen=True)
class LabelFree(Objective):
    """An objective that sees no label, and can make a network say one thing of everything: so it is watched.

    A camera whose predictions in the last pass leave these bounds, or are not finite, has collapsed: its adapter is put
    back to a fresh one.
    """

    least_entropy: float = setting(
        0.001,
        "mean entropy of predictions, over ln C, below which a camera resets its adapter",
        least=0,
        below=1,
    )
    largest_class: float = setting(
        0.9, "mean probability of one class above which a camera resets its adapter; 1: none", above=0, most=1
    )

    def collapsed(self, entropy: float, shares: Float[Tensor, " classes"]) -> bool:
        """Whether the mean entropy or a class's share leaves the bounds, or is no number."""
        largest = float(shares.max())
        return not (entropy >= self.least_entropy and largest <= self.largest_class)

    def guessed(
        self,
        each: Float[Tensor, " n"],
        predicted: Float[Tensor, "b n classes"],
        targets: Int64[Tensor, "b n"] | None = None,
        used: Bool[Tensor, "b n"] | None = None,
    ) -> Losses:
        """Losses with their guesses: of all images, and of each the likeliest class, where nothing else is said."""
        predicted = predicted.detach()
        targets = predicted.argmax(-1) if targets is None else targets
        used = torch.ones_like(targets, dtype=torch.bool) if used is None else used
        return Losses(each, Guesses(predicted, targets, used))


def log_probabilities(logits: Float[Tensor, "*shape classes"]) -> Float[Tensor, "*shape classes"]:
    """ln p, in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def entropy(log_p: Float[Tensor, "*shape classes"]) -> Float[Tensor, "*shape"]:
    """H(p) = -sum_c p_c ln p_c, in nats."""
    return -(log_p.exp() * log_p).sum(-1)


def cross_entropy(
    q: Float[Tensor, "*shape classes"], log_p: Float[Tensor, "*shape classes"]
) -> Float[Tensor, "*shape"]:
    """H(q, p) = -sum_c q_c ln p_c, in nats."""
    return -(q * log_p).sum(-1)
