"""[data]: the images, before any weather."""

from dataclasses import dataclass, replace
from typing import ClassVar

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.section import Section, When
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting

__all__ = ["CifarData", "DataConfig", "FolderData"]


@dataclass(frozen=True)
class FolderData:
    """[data.folder]: an image folder."""

    cloud_share: float = setting(0.6, "share of each class's training images that the cloud has", above=0, below=1)


@dataclass(frozen=True)
class CifarData(FolderData):
    """[data.cifar10] and [data.cifar100]: data sets that can be downloaded."""

    download: bool = setting(False, "download the data set where it is missing")


@dataclass(frozen=True)
class DataConfig(Section):
    """The images, before any weather."""

    section: ClassVar[str] = "data"
    choices: ClassVar = {
        "name": replace(
            registry.DATASETS, declared={**dict.fromkeys(names.DOWNLOADABLE, CifarData), "folder": FolderData}
        )
    }
    under: ClassVar = {
        "root": When("name", lambda name: name not in names.WITHOUT_FILES, "a data set that is read from a folder")
    }
    name: str = setting("digits", "the data set", choices=registry.DATASETS.names, outside=registry.DATASETS.is_outside)
    root: str = setting("", "folder of the data set, seen from FED_LORAC_DATA, or from here where that is not set")
    image_size: int = setting(
        32, "height and width that images are brought to, in pixels; a multiple of 8", least=8, most=1024
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % 8:
            raise ConfigError(
                f"data.image_size must be a multiple of 8, or some weather does not fit it; got {self.image_size}. "
                f"The nearest is {max(8, round(self.image_size / 8) * 8)}."
            )
