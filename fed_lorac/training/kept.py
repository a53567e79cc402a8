"""What a block's untouched layers make of its images, computed once in a local update and kept. Knows a split network,
batches and memory; not what is trained after it.

The numbers are those that every step would compute, to the bit. They are computed in batches of a step's size. The
first batch of each size, and of each number of cameras, is computed again and compared: where a bit differs (a kernel
that sums in another order for another shape, a layer that looks at the other images) such batches are computed as ever.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from fed_lorac.training.batches import Feed
from fed_lorac.training.objectives.objective import Learners
from fed_lorac.training.prefix import Split, split
from fed_lorac.training.recipe import Recipe, Task

__all__ = ["Kept", "kept"]


def kept(learners: Learners, like: nn.Module, feed: Feed, tasks: Sequence[Task], recipe: Recipe) -> "Kept | None":
    """What keeps the prefix's output for these learners; None where the network has no prefix, or none is to be kept.

    Args:
        learners: networks that have not taken a step.
        like: one of these networks.
        feed: their images, which are the same at every step.
        tasks: the cameras'.
        recipe: how steps are taken.
    """
    found = split(learners.side.network, like) if recipe.kept_bytes else "nothing is to be kept"
    return None if isinstance(found, str) else Kept(found, learners, feed, [len(t.labels) for t in tasks], recipe)


class Kept:
    """What a block's networks say of their images, where a part of it is kept. `counts`: images of each camera."""

    def __init__(self, split: Split, learners: Learners, feed: Feed, counts: Sequence[int], recipe: Recipe) -> None:
        self._split, self._learners, self._feed, self._counts, self._recipe = split, learners, feed, counts, recipe
        self._rows: _Rows | None = None
        self._alike: dict[tuple[int, int, bool], bool] = {}  # cameras, images of each, autocast: whether rows serve
        self._filled = False

    def logits(self, cameras: Sequence[int], index: Int64[Tensor, " n*b"]) -> Float[Tensor, "b n classes"]:
        """What the networks of these cameras, of which the next forward is, say of their images (`Feed.index`)."""
        found: Tensor = self._split.after(self._prefix(cameras, index))
        return found.view(len(index) // len(cameras), len(cameras), -1)

    def _prefix(self, cameras: Sequence[int], index: Tensor) -> Tensor:
        n = len(cameras)
        kind = n, len(index) // n, torch.is_autocast_enabled(index.device.type)
        if not self._filled:
            self._fill()
            self._learners.side.part(_places(self._learners, cameras))
        if self._rows is not None and self._alike.get(kind):
            return self._rows.read(index, n)
        fresh: Tensor = self._split.before(self._images(cameras, index))
        if self._rows is not None and kind not in self._alike:
            self._alike[kind] = _same(self._rows.read(index, n), fresh)
        return fresh

    def _images(self, cameras: Sequence[int], index: Tensor) -> Tensor:
        return self._feed.images(cameras, index).to(self._learners.side.parameters[0].dtype)

    @torch.no_grad()
    def _fill(self) -> None:
        """Compute every row of those at work, where they are rows and fit in; who has fewer images than another goes
        through them again."""
        live, self._filled = list(self._learners.live), True
        counts = [self._counts[camera] for camera in live]
        size = min(self._recipe.batch_size, max(counts))
        self._learners.side.part(None)
        for first in range(0, max(counts), size):
            several = torch.arange(first, first + size)
            index = self._feed.index(live, [several % count for count in counts])
            found = self._split.before(self._images(live, index))
            if self._rows is None:
                if not _are_rows(found, len(live), size):
                    return
                if (wanted := sum(self._counts) * (found[0].nbytes // len(live))) > self._recipe.kept_bytes:
                    _tell(self._split.last, wanted)
                    return
                self._rows = _Rows(found, len(live), sum(self._counts))
            self._rows.write(index, found, len(live))


class _Rows:
    """A row for each of `images` images, of what n cameras side by side make of b images each, `like` (b, n*C, ...).
    What is read has the memory layout of `like`: kernels are chosen by it."""

    def __init__(self, like: Shaped[Tensor, "b n*c *size"], n: int, images: int) -> None:
        last = like.movedim(1, -1)
        self._channels_last, (_, channels, *size) = last.is_contiguous(), like.shape
        own = (*size, channels // n) if self._channels_last else (channels // n, *size)
        self._rows = like.new_empty((images, *own))

    def write(self, index: Int64[Tensor, " n*b"], found: Shaped[Tensor, "b n*c *size"], n: int) -> None:
        """Keep b rows of each of n cameras."""
        each = found.unflatten(1, (n, -1)).movedim(1, 0).flatten(0, 1)
        self._rows.index_copy_(0, index, each.movedim(1, -1) if self._channels_last else each)

    def read(self, index: Int64[Tensor, " n*b"], n: int) -> Shaped[Tensor, "b n*c *size"]:
        """These rows, as a batch of n cameras."""
        each = self._rows.index_select(0, index).unflatten(0, (n, -1))
        last = self._channels_last
        read: Tensor = each.movedim(0, -2).flatten(-2).movedim(-1, 1) if last else each.movedim(0, 1).flatten(1, 2)
        return read


def _are_rows(found: object, n: int, b: int) -> bool:
    """Whether this is a row for each of b images of n cameras."""
    return isinstance(found, Tensor) and found.ndim > 1 and len(found) == b and not found.shape[1] % n


@lru_cache
def _tell(last: str, wanted: int) -> None:
    logging.getLogger(__name__).warning(
        "Layers up to %s are computed at every step: what they make of a block's images takes %d MiB, more than "
        "local.kept_mib. With local.kept_mib = %d it is computed once a local update, for the same bytes.",
        last,
        need := -(-wanted // 2**20),
        need,
    )


def _same(read: Tensor, fresh: Tensor) -> bool:
    alike = (read.shape, read.stride(), read.dtype) == (fresh.shape, fresh.stride(), fresh.dtype)
    return alike and torch.equal(read, fresh)


def _places(learners: Learners, cameras: Sequence[int]) -> list[int] | None:
    """Their places, as `part` takes them."""
    places = [learners.live.index(camera) for camera in cameras]
    return None if len(places) == len(learners.live) else places
