"""What the base scores on a camera's images: what every method is compared with. Knows networks and weather; not what
is trained or sent."""

import copy
import threading
from functools import lru_cache
from math import nan
from weakref import WeakKeyDictionary

import torch

from fed_lorac.client.base_scores import kept_scores
from fed_lorac.client.local_update import Scores, in_time, score
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.fleet import CLEAR, Weather
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.training.accuracy import has_batch_norm, statistics_of

__all__ = ["evaluate_base"]

Pair = tuple[float, float]

_AIR = Weather("", CLEAR)
_measured: WeakKeyDictionary[Experiment, dict[tuple[int, Weather], Pair]] = WeakKeyDictionary()
"""Experiment -> camera and weather -> what was measured, where it is the same in every round."""


def evaluate_base(experiment: Experiment, round: int, camera: int) -> tuple[Scores, Scores]:
    """The base model as it comes (source), and with statistics taken by each camera (zero-byte), in the round's
    weather; nan for the latter where the model has no batch norm, which is nothing to adapt.

    Before the first round the driver knows whether an earlier run of the fleet has measured it, and asks for nothing.
    """
    if round and (kept := kept_scores(experiment, round)) is not None:
        source, zero_byte = (Scores(one.weather.get(camera, nan), one.clean.get(camera, nan)) for one in kept)
        return source, zero_byte
    weather = experiment.fleet.weather(camera, round)
    clear = _pair(experiment, round, camera, _AIR) if len(experiment.data.images) else (nan, nan)
    own = clear if weather.severity == CLEAR else _pair(experiment, round, camera, weather)
    source, zero_byte = (Scores(*both) for both in zip(own, clear, strict=True))
    return source, zero_byte


def _pair(experiment: Experiment, round: int, camera: int, weather: Weather) -> Pair:
    """Both in one weather: measured once where a camera that comes into it again sees the same."""
    plan, kept = experiment.plan, _measured.setdefault(experiment, {})
    pixels_stay = weather == _AIR or weather.corruption in experiment.known
    order_stays = plan.stream == "time" or (plan.stream == "iid" and not plan.batch_norm.window)
    if not (pixels_stay and order_stays):
        return _measure(experiment, round, camera, weather)
    if (camera, weather) not in kept:
        kept[camera, weather] = _measure(experiment, round, camera, weather)
    return kept[camera, weather]


def _measure(experiment: Experiment, round: int, camera: int, weather: Weather) -> Pair:
    model, images = _this_thread.base(experiment), experiment.images(camera, weather)
    images = in_time(experiment, camera, round, images)
    _take_back(experiment, model)
    source = score(experiment, model, images, reestimated=False)
    return source, score(experiment, model, images, reestimated=True) if has_batch_norm(model) else nan


def _base_of(experiment: Experiment) -> torch.nn.Module:
    model = copy.deepcopy(experiment.base.plain)
    return model.to(experiment.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class _ThisThread(threading.local):
    """`base`: the base as it came, on the device; one thread alone alters its statistics."""

    def __init__(self) -> None:
        self.base = lru_cache(maxsize=1)(_base_of)


_this_thread = _ThisThread()


@torch.no_grad()
def _take_back(experiment: Experiment, model: torch.nn.Module) -> None:
    """Give a network the base's own statistics again."""
    own = named_tensors(model)
    for name, value in statistics_of(experiment.base.model).items():
        own[name].copy_(value)
