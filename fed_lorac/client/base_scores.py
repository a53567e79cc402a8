"""What a fleet's base scores before the first round, and in later ones where weather changes: measured once, and kept
for later runs of the same fleet. Knows experiments and the cache; not messages.

The base as it comes, and under each camera's own statistics, depends on images, weather, base and arithmetic alone. A
later run with another adapter, strategy, codec or learning rate would measure the same numbers, and reads them.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from math import nan
from weakref import WeakKeyDictionary

import numpy as np
import torch

from fed_lorac.config import FleetEngine, RayWorkers
from fed_lorac.data.store import cached, find
from fed_lorac.errors import DataError, RunError
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.experiment.machine import cpu_model
from fed_lorac.fleet.fleet import CLEAR
from fed_lorac.models import described
from fed_lorac.records.measured import Measured
from fed_lorac.runtime.source import source_of
from fed_lorac.runtime.versions import versions

__all__ = ["CODE", "base_scores", "keep_scores", "kept_scores", "key_of"]

Scores = tuple[Measured, Measured]

_read: WeakKeyDictionary[Experiment, dict[int, Scores | None]] = WeakKeyDictionary()
"""Experiment -> round -> what earlier runs left, once it was looked for."""

CODE = (
    __name__,
    *(f"fed_lorac.adapters.{name}" for name in ("branches", "dataflow", "deltas", "fold_bn", "plain")),
    *(f"fed_lorac.client.{name}" for name in ("evaluate_base", "local_update", "state")),
    *(f"fed_lorac.data.{name}" for name in ("cifar10c", "dataset")),
    "fed_lorac.experiment.base_model",
    "fed_lorac.experiment.experiment",
    *(f"fed_lorac.fleet.{name}" for name in ("camera_data", "fleet")),
    *(f"fed_lorac.models.{name}" for name in ("cifar_resnet", "fingerprints", "stems", "torchvision_networks")),
    "fed_lorac.models.timm_networks",
    *(f"fed_lorac.runtime.{name}" for name in ("normalization", "precision")),
    "fed_lorac.seeds",
    *(f"fed_lorac.training.{name}" for name in ("accuracy", "batches")),
)
"""The modules that measuring the base runs through. With other code, what was kept before is not found."""

_LIBRARIES = ("torch", "torchvision", "timm", "numpy")
_KERNELS = ("ATEN_", "DNNL_", "MKL_", "ONEDNN_")  # the beginnings of variables that choose how a CPU multiplies


def base_scores(experiment: Experiment, measure: Callable[[], Scores]) -> Scores:
    """Source and zero-byte before the first round: as an earlier run of this fleet left them, else as `measure` gives
    them; which are kept. Raises what `measure` raises."""
    if (kept := kept_scores(experiment, 0)) is not None:
        return kept
    found = measure()
    keep_scores(experiment, 0, found)
    return found


def kept_scores(experiment: Experiment, round: int) -> Scores | None:
    """Source and zero-byte in the weather of a round, of all measured cameras, as an earlier run left them; None: it
    left none."""
    rounds = _read.setdefault(experiment, {})
    if round not in rounds:
        rounds[round] = _kept(experiment, round)
    return rounds[round]


def _kept(experiment: Experiment, round: int) -> Scores | None:
    if (key := key_of(experiment, round)) is None or (entry := find(key)) is None:
        return None
    source, zero_byte = (_unpacked(one, sorted(experiment.measured)) for one in entry.arrays["scores"])
    return source, zero_byte


def keep_scores(experiment: Experiment, round: int, found: Scores) -> None:
    """Keep what was measured in a round for later runs, where every camera was and it may be kept; a cache that cannot
    be written is told, and no more."""
    cameras = sorted(experiment.measured)
    if kept_scores(experiment, round) is not None or sorted(found[0].weather) != cameras:
        return
    if (key := key_of(experiment, round)) is None:
        return
    try:
        cached(key, lambda: {"scores": np.array([_packed(one, cameras) for one in found])})
        _read[experiment].pop(round)
    except (RunError, DataError) as error:
        logging.getLogger(__name__).warning("What the base scores is not kept for later runs: %s", error)


def key_of(experiment: Experiment, round: int = 0) -> str | None:
    """All that decides what the base scores before the first round (0), or in a later one where weather changes, as a
    key of the cache; None where that is not to be kept, or nobody knows what decides it: a corruption or a network
    without source, or workers on other machines."""
    config, plan = experiment.config, experiment.plan
    run, outside = config.run, config.model.outside()
    elsewhere = run.on_ray and (run.table(RayWorkers).address or os.environ.get("RAY_ADDRESS"))
    if run.engine != "fleet" or not run.table(FleetEngine).keep_base_scores or elsewhere or "?" in outside.values():
        return None
    if (seen := _seen(experiment, round)) is None:
        return None
    facts = {
        **({"round": round} if round else {}),  # in which images come in another order
        "images": experiment.data.fingerprint,
        "seen": seen,
        "seed": plan.seed,
        "base": experiment.base.fingerprint,
        "network": described(config.model.name, config.model.settings("name")) | outside,
        "normalization": plan.recipe.normalization.text,
        "statistics": (plan.batch_norm.window, plan.stream),
        "arithmetic": _arithmetic(experiment),
        "code": source_of(*CODE),
    }
    return f"scores of a base on {experiment.data.name}; " + "; ".join(f"{name} {its}" for name, its in facts.items())


def _seen(experiment: Experiment, round: int) -> str | None:
    """A hash over the measured cameras' images and weather in a round, and what makes that."""
    fleet, data, digest = experiment.fleet, experiment.data, hashlib.sha256()
    digest.update(str(experiment.plan.evaluate_images).encode())
    for camera in (fleet.cameras[camera] for camera in sorted(experiment.measured)):
        weather = fleet.weather(camera.id, round)
        made_by = "" if weather.severity == CLEAR else _made_by(experiment, weather.corruption)
        if made_by is None:
            return None
        digest.update(
            f"{camera.id} {weather.corruption} {weather.severity} {made_by} {data.corruption_settings}\0".encode()
        )
        for indices in (camera.train, camera.evaluation):
            digest.update(f"{len(indices)} ".encode() + indices.tobytes())
    return digest.hexdigest()


def _made_by(experiment: Experiment, corruption: str) -> str | None:
    on_file = experiment.config.data.name == "cifar10c"  # which its fingerprint is over
    return "on file" if on_file else experiment.data.weather_made_by(corruption)


def _arithmetic(experiment: Experiment) -> Mapping[str, object]:
    """What decides the last bits."""
    gpu = torch.cuda.get_device_name(experiment.device) if experiment.device.type == "cuda" else ""
    return {
        "precision": experiment.precision,
        "device": f"{experiment.device.type} {gpu}",
        "cpu": f"{cpu_model()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": experiment.config.run.threads,
        "multiplies": (torch.get_float32_matmul_precision(), torch.backends.mkldnn.enabled),
        "kernels": sorted((name, value) for name, value in os.environ.items() if name.startswith(_KERNELS)),
        "versions": versions(_LIBRARIES),
    }


def _packed(measured: Measured, cameras: Sequence[int]) -> list[list[float]]:
    """Accuracy in its weather and in clear air, by camera; nan: not measured."""
    return [[scores.get(camera, nan) for camera in cameras] for scores in (measured.weather, measured.clean)]


def _unpacked(scores: np.ndarray, cameras: Sequence[int]) -> Measured:
    """The inverse of `_packed`."""
    weather, clean = (
        {camera: float(score) for camera, score in zip(cameras, row, strict=True) if not np.isnan(score)}
        for row in scores
    )
    return Measured(weather, clean)
