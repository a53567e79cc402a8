"""An objective: what a step lowers, and the batch that it sees. Knows networks side by side, images and labels that
cameras have; not cameras' lives, rounds or the truth.

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
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fed_lorac.errors import ConfigError
from fed_lorac.registry import OBJECTIVES
from fed_lorac.runtime.precision import Precision
from fed_lorac.runtime.settings import check_settings
from fed_lorac.training.batches import Augment, Feed, autocast
from fed_lorac.training.blocks import Alone, Stack

if TYPE_CHECKING:
    from fed_lorac.training.kept import Kept
    from fed_lorac.training.objectives.teachers import Teachers

__all__ = ["NO_LABEL", "Batch", "Guesses", "Labels", "Learners", "Losses", "Objective"]

NO_LABEL = -1
"""The label of an image whose class the camera does not know."""


class Learners:
    """The networks at work, `side`, and what an objective keeps of each in this local update.

    `memory`: rows by name, one for each camera of the block, at work or not. `rngs`: each camera's own stream. `kept`:
    what layers that are not trained make of the images, where that is computed once.
    """

    kept: "Kept | None" = None

    def __init__(self, side: Alone | Stack, rngs: Sequence[np.random.Generator]) -> None:
        self.side, self.rngs, self.memory = side, rngs, dict[str, Tensor]()
        self.live = list(range(len(rngs)))

    @cached_property
    def teachers(self) -> "Teachers":
        """The networks' mean teachers, and other places than their own."""
        from fed_lorac.training.objectives.teachers import Teachers  # noqa: PLC0415  (labels need none)

        return Teachers(self)

    def keep(self, places: Sequence[int]) -> None:
        """Go on with the networks at these places."""
        self.live = [self.live[place] for place in places]
        if "teachers" in vars(self):
            self.teachers.keep(places)

    def logits(self, x: Float[Tensor, "b n*3 h w"]) -> Float[Tensor, "b n classes"]:
        """What the networks say."""
        found: Tensor = self.side.network(x)
        return found.view(len(x), x.shape[1] // 3, -1)


class Batch:
    """The next b images of each of n cameras, before the step; losses of one camera never depend on another's.

    What is drawn is drawn from each camera's own stream, in the order in which it is asked for.
    """

    def __init__(
        self,
        learners: Learners,
        feed: Feed,
        cameras: Sequence[int],
        chosen: Sequence[Int64[Tensor, " b"]],
        precision: Precision,
        dtype: torch.dtype,
    ) -> None:
        self.learners, self.cameras, self._feed = learners, cameras, feed
        self._index, self._precision, self._dtype = feed.index(cameras, chosen), precision, dtype
        self._said: Tensor | None = None

    @cached_property
    def images(self) -> Float[Tensor, "b n*3 h w"]:
        """The images as `local.augment` has them, a network's input."""
        return self.view(None)

    def view(self, augment: str | None) -> Float[Tensor, "b n*3 h w"]:
        """The same images, augmented anew as this one of `AUGMENTS` says; None: as `local.augment` does."""
        return self._feed.images(self.cameras, self._index, cast(Augment | None, augment)).to(self._dtype)

    @property
    def labels(self) -> Int64[Tensor, "b n"]:
        """The labels that the cameras have; `NO_LABEL` where one has none."""
        return self._feed.labels(self.cameras, self._index)

    @property
    def logits(self) -> Float[Tensor, "b n classes"]:
        """What each camera's network says of `images`, computed once."""
        if self._said is None:
            kept = self.learners.kept
            self._said = kept.logits(self.cameras, self._index) if kept else self.learners.logits(self.images)
        return self._said

    def logits_of(self, x: Float[Tensor, "b n*3 h w"]) -> Float[Tensor, "b n classes"]:
        """What each camera's network says of another view."""
        return self.learners.logits(x)

    def predictions(self, x: Float[Tensor, "b n*3 h w"], *, teacher: bool = False) -> Float[Tensor, "b n classes"]:
        """Probabilities by each camera's network, or its teacher, without a gradient."""
        logits = self.learners.teachers.predict(x, taught=teacher)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)

    def recall(self, name: str, width: int) -> Float[Tensor, "n width"]:
        """What an objective has kept of each camera in this local update; zeros where nothing yet."""
        memory, of = self.learners.memory, self._feed.cameras
        if name not in memory:
            memory[name] = torch.zeros((of, width), dtype=torch.promote_types(self._dtype, torch.float32))
        return memory[name][list(self.cameras)].to(self._index.device)

    def remember(self, name: str, rows: Float[Tensor, "n width"]) -> None:
        """Keep a row for each camera until the next batch."""
        memory = self.learners.memory[name]
        memory[list(self.cameras)] = rows.detach().to(memory)

    def arithmetic(self) -> AbstractContextManager[object]:
        """The context that losses are computed in."""
        return autocast(self._precision, self._index.device)

    @contextmanager
    def uphill(self, loss: Tensor, radius: float) -> Iterator[None]:
        """While open, each camera's network stands a step up its own loss; see `Teachers.uphill`."""
        with self.learners.teachers.uphill(loss, radius):
            self._said = None
            yield
        self._said = None

    @contextmanager
    def aside(self, direction: Sequence[Tensor], by: float, *, traceless: bool) -> Iterator[None]:
        """While open, each camera's network stands aside; see `Teachers.aside`."""
        with self.learners.teachers.aside(direction, by, traceless=traceless):
            self._said = None
            yield
        self._said = None


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
    smooth: ClassVar[bool] = False
    """Whether its gradient is the slope of its losses: nothing in them is held fixed, and no step is taken uphill."""

    def __post_init__(self) -> None:
        check_settings(self)

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss on its own images: `Losses(each)`, with or without labels."""

    def checked(self, batch: Batch) -> Losses:
        """`losses`, if they are a number for each camera: of one number for all, each camera's gradient would be a
        share that depends on how many train side by side.

        Raises:
            ConfigError: they are not.
        """
        found: object = self.losses(batch)
        if not isinstance(found, Losses):
            raise self._broken(f"losses gives {type(found).__name__} in place of Losses(each)")
        self._check_each(found.each, batch, "losses")
        return found

    def checked_uphill(self, batch: Batch, first: Losses) -> Float[Tensor, " n"]:
        """The same of `losses_uphill`."""
        found = self.losses_uphill(batch, first)
        self._check_each(found, batch, "losses_uphill")
        return found

    def _check_each(self, each: object, batch: Batch, of: str) -> None:
        if isinstance(each, Tensor) and each.shape == (len(batch.cameras),):
            return
        came = f"shape {tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
        raise self._broken(f"{of} gives {came}, not ({len(batch.cameras)},), a loss a camera: use .mean(0)")

    def _broken(self, what: str) -> ConfigError:
        return OBJECTIVES.broken(f"{type(self).__module__}:{type(self).__qualname__}", what)

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
            found = self.checked(batch)
        if self.radius and found.each.requires_grad:
            with batch.uphill(found.each.sum(), self.radius):
                with batch.arithmetic():
                    uphill = self.checked_uphill(batch, found)
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
class Labels(Objective):
    """The mean of -ln p_y over the batch."""

    source = "cross-entropy with labels"
    uses_labels = True
    smooth = True

    def losses(self, batch: Batch) -> Losses:
        """Each camera's mean cross-entropy."""
        logits, labels = batch.logits, batch.labels
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return Losses(each.view(labels.shape).mean(0))
