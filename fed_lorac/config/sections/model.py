"""[model]: the base network, which all cameras have, and where its weights come from."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fed_lorac import registry
from fed_lorac.config import names
from fed_lorac.config.section import Section, When
from fed_lorac.errors import ConfigError
from fed_lorac.registry import Kind
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.normalization import NORMALIZATIONS, Normalization
from fed_lorac.runtime.settings import setting
from fed_lorac.runtime.spelling import toml

__all__ = ["CifarResNet", "ModelConfig", "Pretrain"]


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
class ModelConfig(Section):
    """The base network and its weights."""

    section: ClassVar[str] = "model"
    choices: ClassVar = {
        "name": replace(registry.MODELS, declared=dict.fromkeys(names.CIFAR_MODELS, CifarResNet)),
        "weights": Kind({"pretrain": Pretrain}),
    }
    under: ClassVar = {
        "stem": When("name", registry.MODELS.is_of_library, "a network of torchvision or timm"),
        "normalization": When("weights", lambda weights: weights != "shipped", "others: shipped ones have their own"),
    }
    name: str = setting(
        "resnet8",
        'the network: one of these, a CNN of torchvision by its name there, or of timm as "timm/NAME"',
        choices=registry.MODELS.names,
        outside=registry.MODELS.takes,
    )
    stem: str = setting(
        "cifar",
        "the network's first layers: made for small images (cifar), or as published (native)",
        choices=names.STEMS,
    )
    weights: str = setting(
        "shipped",
        "the weights that cameras start from: shipped with the package, trained before the run (pretrain), "
        "published (imagenet), random (none), or a file's path",
    )
    normalization: str = setting(
        "auto", 'what pixels are scaled by: a name, or "mean / deviation"; auto: as the weights were trained'
    )

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

    def settings(self, key: str, named: str = "") -> dict[str, Any]:
        """What the network is built with: that of a library, its stem too."""
        own = super().settings(key, named)
        return own | {"stem": self.stem} if key == "name" and "stem" in self.in_view(vars(self)) else own


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
