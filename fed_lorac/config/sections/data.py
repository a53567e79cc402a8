"""[data]: the images, before any weather."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.section import Section, When
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting

__all__ = ["CamerasData", "CifarData", "DataConfig", "FolderData", "TrafficSigns"]


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

    download: bool = setting(False, "download the data set if it is missing")


@dataclass(frozen=True)
class DataConfig(Section):
    """The images, before any weather."""

    section: ClassVar[str] = "data"
    choices: ClassVar = {
        "name": replace(
            registry.DATASETS,
            declared={
                **dict.fromkeys(names.DOWNLOADABLE, CifarData),
                "folder": FolderData,
                "cameras": CamerasData,
                "traffic-signs": TrafficSigns,
            },
        )
    }
    under: ClassVar = {
        "root": When("name", lambda name: name not in names.WITHOUT_FILES, "a data set that is read from a folder"),
        "resize": When("name", lambda name: name in names.OF_ANY_SIZE, "a data set of files of any size"),
    }
    name: str = setting("digits", "the data set", choices=registry.DATASETS.names, outside=registry.DATASETS.is_outside)
    root: str = setting(
        "", "folder of the data set, relative to FED_LORAC_DATA, or to the current folder if that is not set"
    )
    image_size: int = setting(
        32, "height and width that images are brought to, in pixels; a multiple of 8", least=8, most=1024
    )
    resize: str = setting(
        "squeeze", "how files that are not square become so: squeezed, or cropped to the middle", choices=names.RESIZES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % 8:
            raise ConfigError(
                f"data.image_size must be a multiple of 8, or some weather does not fit it; got {self.image_size}. "
                f"The nearest is {max(8, round(self.image_size / 8) * 8)}."
            )
