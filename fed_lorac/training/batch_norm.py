"""Batches that leave batch norm one value a channel, which has no variance: found before anything trains. Knows
networks and how many images there are; not pixels, rounds or adapters.

PyTorch raises on such a batch, in the middle of training. It is one of a single image, in a network whose maps have
shrunk to a single pixel; the network is looked at only where there is such a batch.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor, nn

from fed_lorac.errors import ConfigError
from fed_lorac.fleet.fleet import Camera
from fed_lorac.training.accuracy import batch_norms, has_batch_norm, modes_kept

__all__ = ["check_cameras", "check_cloud", "check_used"]

_MORE = "more fleet.images or fewer fleet.cameras"
_LAW = "Batch norm takes its statistics from at least two values a channel"


def check_cameras(
    cameras: Sequence[Camera],
    model: nn.Module,
    *,
    image_size: int,
    batch_size: int,
    steps: int,
    window: int,
    trains: bool,
    local: bool,
) -> None:
    """Raise `ConfigError` where a camera would train on, or take its statistics from, a batch that has no variance.

    Args:
        cameras: the fleet's.
        model: the network that they train.
        image_size: pixels a side.
        batch_size: images a step.
        steps: steps a round; 0: whole epochs.
        window: how many of its images a camera takes its statistics from; 0: all.
        trains: whether training normalises by each batch's statistics.
        local: whether each camera has statistics of its own.
    """
    images = {camera.id: len(camera.train) for camera in cameras}
    for camera, count in images.items():
        if (min(count, window) if window else count) == 1 and (layer := _lone(model, image_size)):
            raise ConfigError(
                f"{_LAW}; camera {camera} takes them from one image ({_counted(count)}, batch_norm.local.window = "
                f"{window}), {_seen(layer, image_size)}. Set "
                + _any_of(*_larger(model, image_size), "batch_norm.local.window = 2 or more" if count > 1 else _MORE)
            )
        if trains and _smallest(count, batch_size, steps) == 1 and (layer := _lone(model, image_size)):
            counts = set(images.values())
            near = sorted(range(2, max(counts) + 1), key=lambda other: abs(other - batch_size))
            fit = next((b for b in near if all(_smallest(n, b, steps) != 1 for n in counts)), 0)
            remedies = [f"local.batch_size = {fit}"] * bool(fit) + _larger(model, image_size)
            remedies += ['batch_norm.local.training_statistics = "fixed"'] * local
            raise ConfigError(
                f"{_LAW}; camera {camera} has a batch of one image ({_counted(count)}, local.batch_size = "
                f"{batch_size}), {_seen(layer, image_size)}. Set {_any_of(*(remedies or [_MORE]))}"
            )


def check_used(model: nn.Module, *, trains: bool, shared: bool) -> None:
    """Raise `ConfigError` where all that is adapted, or shared, are the statistics of a batch norm that there is not.

    Args:
        model: the network.
        trains: whether cameras train.
        shared: whether statistics are sent.
    """
    if (trains and not shared) or has_batch_norm(model):
        return
    what = "Only batch norm has statistics to share" if shared else "Without training, a camera adapts batch norm alone"
    remedy = 'batch_norm.mode = "local", which then sends nothing' if trains else "a strategy that trains"
    raise ConfigError(f"{what}; this network, a {type(model).__name__}, has none. Set {remedy}, or another model.name.")


def check_cloud(count: int, batch_size: int, side: int, model: nn.Module) -> None:
    """The same where a base is trained, on the cloud's `count` images."""
    if _smallest(count, batch_size, 0) == 1 and (layer := _lone(model, side)):
        raise ConfigError(
            f"{_LAW}; the cloud's last batch is one image ({_counted(count)}, {batch_size} a batch), "
            f"{_seen(layer, side)}. Set {_any_of(*_larger(model, side), 'another data.cloud_share', 'one image more')}"
        )


def _smallest(count: int, batch_size: int, steps: int) -> int:
    """The smallest batch of a round's training on `count` images: an epoch's last, where the steps come so far."""
    epoch = -(-count // batch_size)
    return batch_size if 0 < steps < epoch else count - (epoch - 1) * batch_size


@torch.no_grad()
def _lone(model: nn.Module, side: int) -> str:
    """The first batch norm, by name, to which an image of `side` pixels brings one value a channel; empty: none."""
    found: list[str] = []

    def look(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0][0, 0].numel() == 1:
            found.append(name)

    hooks = [norm.register_forward_pre_hook(partial(look, name)) for name, norm in batch_norms(model)]
    try:
        with modes_kept(model):
            model.eval()(torch.zeros(2, 3, side, side, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def _seen(layer: str, side: int) -> str:
    return f"of which {layer} sees one value a channel at data.image_size = {side}"


def _larger(model: nn.Module, side: int) -> list[str]:
    """The setting of a size that brings every batch norm more values, where one of two larger ones does: some networks
    take no other size, and some norms see one value at any."""
    for larger in (side + 8, 2 * side):
        with suppress(Exception):  # whatever the network's own code raises
            if not _lone(model, larger):
                return [f"data.image_size = {larger}"]
    return []


def _any_of(*remedies: str) -> str:
    return f"{' or '.join(remedies)}."


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
