"""One batch of several cameras as an objective sees it: images, whatever labels a camera has, and its network. Knows
images, labels and networks side by side; not cameras' lives, rounds or the truth."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fed_lorac.runtime.precision import Precision
from fed_lorac.training.batches import Augment, Feed, autocast
from fed_lorac.training.objectives.learners import Learners

__all__ = ["NO_LABEL", "STRONG", "Batch"]

NO_LABEL = -1
"""The label of an image whose class the camera does not know."""

STRONG: Augment = "reflect_flip_cutout_light"
"""How the strong view of an image is drawn."""


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
        self._learners, self._feed, self._cameras = learners, feed, cameras
        self._index, self._precision, self._dtype = feed.index(cameras, chosen), precision, dtype
        self._said: Tensor | None = None

    @cached_property
    def images(self) -> Float[Tensor, "b n*3 h w"]:
        """The images as `local.augment` has them, a network's input."""
        return self.view(None)

    def view(self, augment: Augment | None) -> Float[Tensor, "b n*3 h w"]:
        """The same images, augmented anew as this says."""
        return self._feed.images(self._cameras, self._index, augment).to(self._dtype)

    @property
    def labels(self) -> Int64[Tensor, "b n"]:
        """The labels that the cameras have; `NO_LABEL` where one has none."""
        return self._feed.labels(self._cameras, self._index)

    @property
    def logits(self) -> Float[Tensor, "b n classes"]:
        """What each camera's network says of `images`, computed once."""
        if self._said is None:
            self._said = self._learners.logits(self.images)
        return self._said

    def logits_of(self, x: Float[Tensor, "b n*3 h w"]) -> Float[Tensor, "b n classes"]:
        """What each camera's network says of another view."""
        return self._learners.logits(x)

    def predictions(self, x: Float[Tensor, "b n*3 h w"], *, teacher: bool = False) -> Float[Tensor, "b n classes"]:
        """Probabilities by each camera's network, or its teacher, without a gradient."""
        logits = self._learners.predict(x, teacher=teacher)
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)

    def recall(self, name: str, width: int) -> Float[Tensor, "n width"]:
        """What an objective has kept of each camera in this local update; zeros where nothing yet."""
        memory, of = self._learners.memory, self._feed.cameras
        if name not in memory:
            memory[name] = torch.zeros((of, width), dtype=torch.promote_types(self._dtype, torch.float32))
        return memory[name][list(self._cameras)].to(self._index.device)

    def remember(self, name: str, rows: Float[Tensor, "n width"]) -> None:
        """Keep a row for each camera until the next batch."""
        memory = self._learners.memory[name]
        memory[list(self._cameras)] = rows.detach().to(memory)

    def arithmetic(self) -> AbstractContextManager[object]:
        """The context that losses are computed in."""
        return autocast(self._precision, self._index.device)

    @contextmanager
    def uphill(self, loss: Tensor, radius: float) -> Iterator[None]:
        """While open, each camera's network stands a step up its own loss; see `Learners.uphill`."""
        with self._learners.uphill(loss, radius):
            self._said = None
            yield
        self._said = None
