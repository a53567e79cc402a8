"""What every arm is told, the images it has, and what it says in the end. Knows files; not networks."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["RESULT", "SETTINGS", "Found", "Images", "Settings", "environment", "images_of", "settings_of_this_run"]

SETTINGS, RESULT = "PEERS_SETTINGS", "PEERS_RESULT"  # variables that name files
_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # CIFAR-10's own


@dataclass(frozen=True)
class Settings:
    """The scenario; `folder` holds `camera-<id>.npz`, `weights` is the base's safetensors file, and `fleetgrid` what
    FleetGrid is told beside, as `-c` takes it."""

    folder: str
    weights: str
    cameras: int
    rounds: int
    epochs: int = 1
    batch_size: int = 50
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 5.0
    rank: int = 1
    alpha: float = 2.0
    model: str = "resnet20"
    classes: int = 10
    device: str = "cpu"
    workers: int = 2
    threads: int = 1
    precision: str = "fp32"
    channels_last: bool = True
    fleetgrid: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """As JSON, for a process of its own."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@lru_cache(maxsize=1)
def settings_of_this_run() -> Settings:
    """The settings in the file that PEERS_SETTINGS names, which an arm's other processes see as well."""
    return Settings(**json.loads(Path(os.environ[SETTINGS]).read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Found:
    """What an arm comes to. Accuracies are means over the cameras, in their weather but for `accuracy_clean`."""

    train_seconds: list[float]
    """Of each round, from asking the first camera to having averaged."""
    evaluation_seconds: float
    """Of measuring the base before the first round and the model after the last."""
    trainable: int
    source: float
    zero_byte: float
    accuracy: float
    accuracy_clean: float
    environment: Mapping[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        """Into the file that PEERS_RESULT names."""
        Path(os.environ[RESULT]).write_text(json.dumps(asdict(self)), encoding="utf-8")


def environment(*packages: str) -> dict[str, Any]:
    """The arm's Python, whether threads of it run one at a time, and its packages."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {"python": platform.python_version(), "gil": gil} | {name: version(name) for name in ("torch", *packages)}


@dataclass(frozen=True)
class Images:
    """Normalised float32 images (N, 3, H, W) and labels (N,), to adapt on and to be measured on."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


@cache
def images_of(camera: int, sky: str) -> Images:
    """A camera's images under a `sky`, "weather" or "clear": read and normalised once a process."""
    settings = settings_of_this_run()
    with np.load(Path(settings.folder, f"camera-{camera}.npz"), allow_pickle=False) as file:
        train, test = (_normalised(file[f"{sky}_{part}"], settings) for part in ("train", "test"))
        labels = (torch.from_numpy(file[f"{part}_labels"]).to(settings.device) for part in ("train", "test"))
        train_labels, test_labels = labels
    return Images(train, train_labels, test, test_labels)


def _normalised(images: np.ndarray, settings: Settings) -> Tensor:
    mean, std = (np.array(value, dtype=np.float32) for value in (_MEAN, _STD))
    scaled = (images.astype(np.float32) / np.float32(255) - mean) / std
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).to(settings.device, memory_format=layout)
