"""A contact sheet: what cameras see, as one picture. Knows experiments and pixels; not rounds."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.fleet import Camera

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["alternative", "contact_sheet", "evenly"]

_SIDE, _GAP, _LABEL = 72, 4, 190  # pixels
_MOST_NAMES = 2
_DARK, _PAPER = (32, 32, 32), (255, 255, 255)


def contact_sheet(experiment: Experiment, cameras: int = 24, images: int = 8) -> "Image":
    """Some of what each camera adapts on, a row a camera, the first `cameras` of them.

    Where the weather stays, a row is of several images; where it changes, of one image in rounds of the whole run, so
    that the weather is seen to come and go. Images are drawn once for the run's own cache.
    """
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415

    shown, rounds = experiment.fleet.cameras[:cameras], experiment.plan.rounds
    when = evenly(rounds, images) if experiment.fleet.changing else []
    columns = len(when) or images
    head = _SIDE // 3 if when else 0
    size = _LABEL + columns * (_SIDE + _GAP), head + len(shown) * (_SIDE + _GAP)
    sheet, font = Image.new("RGB", size, _PAPER), ImageFont.load_default(14)
    pen = ImageDraw.Draw(sheet)
    for column, round in enumerate(when):
        pen.text((_LABEL + column * (_SIDE + _GAP), 4), f"round {round + 1}", fill=_DARK, font=font)
    for row, camera in enumerate(shown):
        top = head + row * (_SIDE + _GAP)
        own = _names(_corruptions(experiment, camera.id)) if when else _weather(camera)
        pen.multiline_text(
            (4, top + 8), f"camera {camera.id} {camera.name}\n{own}\n{camera.link}", fill=_DARK, font=font
        )
        for column, pixels in enumerate(_seen(experiment, camera.id, images, when)):
            tile = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            sheet.paste(tile, (_LABEL + column * (_SIDE + _GAP), top))
    return sheet


def _weather(camera: Camera) -> str:
    return "as it is" if camera.severity == 0 else f"{camera.corruption} {camera.severity}"


def _corruptions(experiment: Experiment, camera: int) -> list[str]:
    """What a camera sees in the run, each once."""
    rounds = range(1, experiment.plan.rounds + 1)
    return list(dict.fromkeys(experiment.fleet.weather(camera, round).corruption for round in rounds))


def _names(corruptions: Sequence[str]) -> str:
    """As many as there is room for beside a row."""
    return ", ".join(corruptions[:_MOST_NAMES]) + (" ..." if len(corruptions) > _MOST_NAMES else "")


def _seen(experiment: Experiment, camera: int, images: int, when: Sequence[int]) -> list[np.ndarray]:
    fleet = experiment.fleet
    if when:
        return [experiment.images(camera, fleet.weather(camera, round + 1)).train[0].numpy() for round in when]
    pixels = experiment.images(camera, fleet.weather(camera, 1)).train
    return [pixels[place].numpy() for place in evenly(len(pixels), images)]


def evenly(count: int, most: int) -> list[int]:
    """At most so many of the first `count` whole numbers, evenly spread, the first among them."""
    return [k * count // min(count, most) for k in range(min(count, most))]


def alternative(experiment: Experiment, cameras: int = 24) -> str:
    """The sheet in words, for who cannot see it."""
    shown = experiment.fleet.cameras[:cameras]
    seen = (_corruptions(experiment, one.id) if experiment.fleet.changing else [_weather(one)] for one in shown)
    weathers = dict.fromkeys(chain.from_iterable(seen))
    return (
        f"What {len(shown)} of {len(experiment.fleet.cameras)} cameras see, one row per camera, in "
        f"{', '.join(weathers)}."
    )
