"""Choices of a fleet that do not go together: how many cameras, in which weathers, with which images, on which links.
Knows the config; not what cameras do."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fed_lorac.config import names
from fed_lorac.config.sections import Sampled
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import items
from fed_lorac.runtime.spelling import toml

if TYPE_CHECKING:
    from fed_lorac.config.whole import Config

__all__ = ["of_fleet"]


def of_fleet(config: "Config") -> Iterator[str]:
    """Each contradiction as one message: the law, what came, the remedy."""
    fleet = config.fleet
    if fleet.per_round > fleet.cameras:
        yield (
            f"A round cannot draw more cameras than there are; got fleet.per_round = {fleet.per_round} of "
            f"fleet.cameras = {fleet.cameras}. Lower the first or raise the second."
        )
    if (sample := config.run.table(Sampled).evaluate_cameras) > fleet.cameras:
        yield (
            f"A sample has no more cameras than there are; got evaluate_cameras = {sample} of fleet.cameras = "
            f"{fleet.cameras}. Lower the first, or set it to 0, which measures all."
        )
    yield from _held_out(config)
    yield from _deal(config)
    try:
        fleet.links()
    except ConfigError as error:
        yield str(error)


def _held_out(config: "Config") -> Iterator[str]:
    """What is asked of a fleet some of whose weathers nobody trains in."""
    fleet = config.fleet
    if not fleet.held_out:
        return
    got = f"got fleet.held_out = {toml(fleet.held_out)}"
    if strange := [name for name in items(fleet.held_out) if name not in fleet.corruption_names]:
        yield (
            f"Weathers that are held out are some of the fleet's; {got} with fleet.corruptions = "
            f"{toml(fleet.corruptions)}. Name those of them, or add {strange[0]} to the fleet's."
        )
    elif (able := sum(fleet.training_cameras)) < fleet.per_round <= fleet.cameras:
        yield (
            f"A round draws cameras whose weather is not held out; {got}, which leaves {able} cameras for "
            f"fleet.per_round = {fleet.per_round}. Lower that, or hold out fewer weathers."
        )
    if fleet.schedule == "walk":
        yield (
            f'A weather is held out where cameras keep to theirs; {got} with fleet.schedule = "walk", which takes each '
            "camera through all of them. Choose another schedule."
        )


def _deal(config: "Config") -> Iterator[str]:
    """What is asked of a fleet whose cameras share images."""
    fleet, got = config.fleet, 'got fleet.deal = "overlapping"'
    if fleet.deal != "overlapping":
        return
    if not fleet.eval_images:
        yield (
            f"Cameras that share images each draw so many; {got} with fleet.eval_images = 0. Set fleet.eval_images to "
            "the number of images that a camera is measured on."
        )
    if fleet.validation_share:
        yield (
            f"Images that settings are tuned on are no camera's to train on; {got} with fleet.validation_share = "
            f"{toml(fleet.validation_share)}, where other cameras may have them. Set fleet.validation_share to 0, or "
            'fleet.deal = "disjoint".'
        )
    if config.data.name in names.OWN_CAMERAS:
        yield (
            f"Cameras with images of their own have those that they took; {got} with data.name = "
            f'{toml(config.data.name)}. Set fleet.deal = "disjoint".'
        )
