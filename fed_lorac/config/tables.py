"""The options that matter only under one choice, a class for each table `[section.CHOICE]`. Knows keys and ranges.

A method's own options are fields of its class; these here are of choices that have no class elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fed_lorac.config import names
from fed_lorac.runtime.settings import setting

__all__ = [
    "DATA",
    "CamerasData",
    "CifarData",
    "CifarResNet",
    "Daily",
    "Dirichlet",
    "FleetEngine",
    "FlowerEngine",
    "FolderData",
    "Front",
    "LocalStatistics",
    "Pretrain",
    "Topk",
    "TrafficSigns",
    "Walk",
]


@dataclass(frozen=True)
class FleetEngine:
    """[run.fleet]: our own grid."""

    block_size: int = setting(0, "cameras that train side by side; 0: chosen by model and image size", least=0)
    checkpoint_every: int = setting(1, "rounds between checkpoints, for --resume; 0: no checkpoints", least=0)
    round_timeout_s: float = setting(3600.0, "seconds after which a reply is too late for its round", above=0)
    block_timeout_s: float = setting(
        600.0, "seconds that a worker may take for one block before it is replaced", above=0
    )


@dataclass(frozen=True)
class FlowerEngine:
    """[run.flower]: Flower's own runtime."""

    round_timeout_s: float = setting(3600.0, "seconds after which a reply is too late for its round", above=0)


@dataclass(frozen=True)
class CifarResNet:
    """[model.resnet8] and so on: the ResNets for CIFAR."""

    width: int = setting(0, "channels of the first stage; 0: the model's usual width", least=0)
    norm: str = setting("batch", "normalization layers", choices=names.NORMS)
    shortcut: str = setting("projection", "shortcuts where the shape changes", choices=names.SHORTCUTS)


@dataclass(frozen=True)
class Pretrain:
    """[model.pretrain]: a base network trained on the cloud's images."""

    epochs: int = setting(70, "passes over the cloud's images", least=1)


@dataclass(frozen=True)
class FolderData:
    """[data.folder]: an image folder."""

    cloud_share: float = setting(0.6, "share of each class's training images that the cloud has", above=0, below=1)


@dataclass(frozen=True)
class CamerasData:
    """[data.cameras]: cameras with images of their own."""

    eval_share: float = setting(
        0.2, "share of a camera's images, the latest, that it is measured on; unused with test images", above=0, below=1
    )
    cloud_cameras: str = setting("", "cameras whose images the cloud has, to train a base on", listed=True)


@dataclass(frozen=True)
class TrafficSigns(FolderData):
    """[data.traffic-signs]: the German Traffic Sign Recognition Benchmark."""

    cloud_share: float = setting(0.5, "share of each class's tracks that the cloud has", above=0, below=1)


@dataclass(frozen=True)
class CifarData(FolderData):
    """[data.cifar10] and [data.cifar100]: data sets that can be downloaded."""

    download: bool = setting(False, "download the data set where it is missing")


DATA: Mapping[str, type] = {
    **dict.fromkeys(names.DOWNLOADABLE, CifarData),
    "folder": FolderData,
    "cameras": CamerasData,
    "traffic-signs": TrafficSigns,
}
"""data.name -> the class that declares its settings."""


@dataclass(frozen=True)
class Front:
    """[fleet.front]: a front of weather passes over the cameras, one after the other."""

    period: int = setting(6, "rounds that the front takes to pass over one camera", least=2)
    lag: float = setting(1.0, "rounds that the front takes from one camera to the next", least=0)


@dataclass(frozen=True)
class Daily:
    """[fleet.daily]: the severity rises and falls with the hour."""

    period: int = setting(6, "rounds in a day", least=2)


@dataclass(frozen=True)
class Walk:
    """[fleet.walk]: each camera's weather changes at random."""

    period: int = setting(6, "rounds between two changes of corruption, on average", least=2)


@dataclass(frozen=True)
class Dirichlet:
    """[fleet.dirichlet]: cameras differ in how often they see each class."""

    alpha: float = setting(0.5, "concentration; a smaller one makes cameras differ more", least=0.001)


@dataclass(frozen=True)
class LocalStatistics:
    """[batch_norm.local]: each camera has statistics of its own."""

    training_statistics: str = setting(
        "batch",
        "statistics while training: of each batch, or fixed from a few images before it begins",
        choices=names.TRAINING_STATISTICS,
    )
    window: int = setting(0, "newest images of a camera that its statistics are taken from; 0: all", least=0)


@dataclass(frozen=True)
class Topk:
    """[codec.topk]: only the largest values of each tensor are sent."""

    share: float = setting(0.05, "share of each tensor's values that is sent", least=0.001, most=1)
