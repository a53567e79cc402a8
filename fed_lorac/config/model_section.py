"""The settings of the base network and its weights. Knows keys, names and words; not files, layers or tensors."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fed_lorac import registry
from fed_lorac.config import names, tables
from fed_lorac.config.section import Section
from fed_lorac.errors import ConfigError
from fed_lorac.registry import Kind
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.normalization import NORMALIZATIONS, Normalization
from fed_lorac.runtime.settings import setting
from fed_lorac.runtime.spelling import toml

__all__ = ["ModelConfig"]


@dataclass(frozen=True)
class ModelConfig(Section):
    """The base network and its weights."""

    section: ClassVar[str] = "model"
    choices: ClassVar = {
        "name": replace(registry.MODELS, declared=dict.fromkeys(names.CIFAR_MODELS, tables.CifarResNet)),
        "weights": Kind({"pretrain": tables.Pretrain}),
    }
    name: str = setting(
        "resnet8",
        'the architecture: one of these, a CNN of torchvision, or of timm as "timm/NAME"',
        choices=registry.MODELS.names,
        outside=registry.MODELS.takes,
    )
    stem: str = setting("cifar", "of torchvision's and timm's: for small images, or as published", choices=names.STEMS)
    weights: str = setting("shipped", "shipped, none, pretrain, imagenet, or the path of a checkpoint")
    normalization: str = setting("auto", 'of pixels: a name, or "mean / deviation"; auto: as the weights were trained')

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in names.WEIGHTS and not _is_path(self.weights):
            raise ConfigError(
                f"model.weights must be one of {', '.join(names.WEIGHTS)} or a path, which has a slash in it (as in "
                f"./{self.weights or 'FILE'}) or ends in {', '.join(names.WEIGHT_FILES)}; got {toml(self.weights)}."
                f"{did_you_mean(self.weights, names.WEIGHTS)}"
            )
        if self.normalization != "auto":
            _check_normalization(self.normalization)
        if self.stem != "cifar" and not registry.MODELS.is_of_library(self.name):
            raise ConfigError(
                f"model.stem is for networks of torchvision and timm; got model.stem = {toml(self.stem)} with "
                f"model.name = {toml(self.name)}, whose stem is its own. Take it away, or choose another model.name."
            )

    def settings(self, key: str, named: str = "") -> dict[str, Any]:
        """What the network is built with: of a library, its stem."""
        own = super().settings(key, named)
        return own | {"stem": self.stem} if key == "name" and registry.MODELS.is_of_library(self.name) else own


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.lower().endswith(names.WEIGHT_FILES)


def _check_normalization(text: str) -> None:
    try:
        Normalization.parse(text)
    except ConfigError as cause:
        raise ConfigError(
            f'model.normalization is "auto", the weights\' own, or a normalization. {cause}'
            f"{did_you_mean(text, ('auto', *NORMALIZATIONS))}"
        ) from None
