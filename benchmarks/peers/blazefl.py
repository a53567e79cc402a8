"""The scenario under BlazeFL: a server handler, and a client trainer whose cameras are threads. Knows BlazeFL's
packages; what a camera does is in `turn`."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from statistics import fmean

import torch
from blazefl.core import BaseServerHandler, ThreadPoolClientTrainer
from torch import Tensor, nn

from peers.network import base_network, load, network, statistics, trained
from peers.settings import Found, Settings, environment, images_of, settings_of_this_run
from peers.turn import learning_rate, measured, train

Tensors = dict[str, Tensor]


@dataclass
class Down:
    """What the server says to every camera it asks: in which round, what for ("train", "baseline" or "evaluate")."""

    number: int
    what: str
    arrays: Tensors


@dataclass
class Up:
    """What a camera says: parameters (after training), its new statistics, and what it measured."""

    camera: int
    images: int
    arrays: Tensors
    statistics: Tensors
    scores: Mapping[str, float] = field(default_factory=dict)


class Handler(BaseServerHandler[Up, Down]):  # type: ignore[misc]
    """FedAvg over everyone."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.number, self.what = settings, 0, "baseline"
        self.arrays: Tensors = {name: p.clone() for name, p in trained(network()).items()}
        self._came: list[Up] = []

    def sample_clients(self) -> list[int]:
        return list(range(self.settings.cameras))

    def downlink_package(self) -> Down:
        return Down(self.number, self.what, self.arrays)

    def is_stopped(self) -> bool:
        return self.number >= self.settings.rounds

    def load(self, payload: Up) -> bool:
        self._came.append(payload)
        if len(self._came) < self.settings.cameras:
            return False
        self.global_update(self._came)
        self._came = []
        return True

    def global_update(self, buffer: list[Up]) -> None:
        whole = sum(up.images for up in buffer)
        self.arrays = {
            name: torch.stack([up.arrays[name] * (up.images / whole) for up in buffer]).sum(0) for name in self.arrays
        }


def _turn(model: nn.Module, camera: int, down: Down, own: Tensors) -> Up:
    """What a camera does, on a worker's model."""
    settings, images = settings_of_this_run(), images_of(camera, "weather")
    load(model, down.arrays, own)
    if down.what == "train":
        generator = torch.Generator().manual_seed(camera + 1000 * down.number)
        train(model, images, settings, learning_rate(settings, down.number), generator)
        return Up(camera, len(images.train), _copied(trained(model)), _copied(statistics(model)))
    scores = measured(model, camera, settings, baseline=down.what == "baseline")
    return Up(camera, len(images.test), {}, _copied(statistics(model)), scores)


def _copied(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.clone() for name, tensor in tensors.items()}


class Trainer(ThreadPoolClientTrainer[Up, Down]):  # type: ignore[misc]
    """Cameras in threads, each on one of as many models as there are threads."""

    def __init__(self, settings: Settings) -> None:
        self.num_parallels, self.device, self.device_count = settings.workers, settings.device, 1
        self.cache: list[Up] = []
        self.stop_event = threading.Event()
        self.statistics: dict[int, Tensors] = {}
        self._models: SimpleQueue[nn.Module] = SimpleQueue()
        for _ in range(settings.workers):
            self._models.put(base_network(settings))

    def uplink_package(self) -> list[Up]:
        came, self.cache = self.cache, []
        self.statistics |= {up.camera: up.statistics for up in came}
        return came

    def worker(self, cid: int, device: str, payload: Down, stop_event: threading.Event) -> Up:
        model = self._models.get()
        try:
            return _turn(model, cid, payload, self.statistics.get(cid, {}))
        finally:
            self._models.put(model)


def run() -> None:
    """The whole arm."""
    settings = settings_of_this_run()
    handler, trainer = Handler(settings), Trainer(settings)
    base, evaluation_s = _asked(handler, trainer)
    seconds = []
    while not handler.is_stopped():
        began = time.perf_counter()
        handler.number, handler.what = handler.number + 1, "train"
        trainer.local_process(handler.downlink_package(), handler.sample_clients())
        for package in trainer.uplink_package():
            handler.load(package)
        seconds.append(time.perf_counter() - began)
    handler.what = "evaluate"
    last, last_s = _asked(handler, trainer)
    Found(
        train_seconds=seconds,
        evaluation_seconds=evaluation_s + last_s,
        trainable=sum(tensor.numel() for tensor in handler.arrays.values()),
        source=base["source-weather"],
        zero_byte=base["accuracy-weather"],
        accuracy=last["accuracy-weather"],
        accuracy_clean=last["accuracy-clear"],
        environment=environment("blazefl", "loralib"),
    ).write()


def _asked(handler: Handler, trainer: Trainer) -> tuple[dict[str, float], float]:
    """The means of what everyone measures, and seconds."""
    began = time.perf_counter()
    trainer.local_process(handler.downlink_package(), handler.sample_clients())
    came = trainer.uplink_package()
    return {key: fmean(up.scores[key] for up in came) for key in came[0].scores}, time.perf_counter() - began
