"""Batches that leave batch norm one value a channel, which has no variance: found before anything trains. Knows
networks, the config and how many images there are; not pixels, rounds or adapters.

PyTorch raises on such a batch, in the middle of a turn. It is one of a single image, in a network whose maps have
shrunk to a single pixel; the network is looked at only where there is such a batch.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fed_lorac.config import Config, LocalStatistics
from fed_lorac.errors import ConfigError
from fed_lorac.fleet.fleet import Camera
from fed_lorac.training.accuracy import batch_norms

__all__ = ["check_cameras", "check_cloud"]

_LAW = "Batch norm takes its statistics from at least two values a channel"


def check_cameras(config: Config, cameras: Sequence[Camera], model: nn.Module) -> None:
    """Raise `ConfigError` where a camera would train on, or take its statistics from, a batch that has no variance."""
    images, window = (
        {camera.id: len(camera.train) for camera in cameras},
        config.batch_norm.table(LocalStatistics).window,
    )
    for camera, count in images.items():
        if (min(count, window) if window else count) == 1 and (layer := _lone(model, config.data.image_size)):
            raise ConfigError(
                f"{_LAW}; camera {camera} takes them from one image ({_counted(count)}, batch_norm.local.window = "
                f"{window}), {_seen(layer, config.data.image_size)}. Set {_larger(model, config.data.image_size)}, or "
                + (
                    "batch_norm.local.window = 2 or more."
                    if count > 1
                    else "more fleet.images, or fewer fleet.cameras."
                )
            )
        if _trains_norms(config) and _smallest(count, config.local.batch_size, config.local.steps) == 1:
            _check_turn(config, camera, images, model)


def check_cloud(count: int, batch_size: int, side: int, model: nn.Module) -> None:
    """The same where a base is trained, on the cloud's `count` images."""
    if _smallest(count, batch_size, 0) == 1 and (layer := _lone(model, side)):
        raise ConfigError(
            f"{_LAW}; the cloud's last batch is one image ({_counted(count)}, {batch_size} a batch), "
            f"{_seen(layer, side)}. Set {_larger(model, side)}, another cloud_share, or add an image."
        )


def _check_turn(config: Config, camera: int, images: dict[int, int], model: nn.Module) -> None:
    size, side = config.local.batch_size, config.data.image_size
    if not (layer := _lone(model, side)):
        return
    near = sorted(range(2, max(images.values()) + 1), key=lambda other: abs(other - size))
    fit = next((b for b in near if all(_smallest(n, b, config.local.steps) != 1 for n in set(images.values()))), 0)
    remedies = [f"local.batch_size = {fit}"] * bool(fit) + [_larger(model, side)]
    remedies += ['batch_norm.local.training_statistics = "fixed"'] * (config.batch_norm.mode == "local")
    raise ConfigError(
        f"{_LAW}; camera {camera} has a batch of one image ({_counted(images[camera])}, local.batch_size = {size}), "
        f"{_seen(layer, side)}. Set {' or '.join(remedies)}."
    )


def _trains_norms(config: Config) -> bool:
    """Whether batch norm goes by each batch's statistics in a turn."""
    norm = config.batch_norm
    return (
        norm.mode != "frozen"
        and norm.table(LocalStatistics).training_statistics == "batch"
        and config.strategy.name != "zero-byte"
    )


def _smallest(count: int, batch_size: int, steps: int) -> int:
    """The smallest batch of a turn on `count` images: an epoch's last, where the steps come so far."""
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
    was_training, device = model.training, next(model.parameters()).device
    model.eval()(torch.zeros(2, 3, side, side, device=device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return found[0] if found else ""


def _seen(layer: str, side: int) -> str:
    return f"of which {layer} sees one value a channel at data.image_size = {side}"


def _larger(model: nn.Module, side: int) -> str:
    return f"data.image_size = {next(larger for larger in range(side + 8, 1033, 8) if not _lone(model, larger))}"


def _counted(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
