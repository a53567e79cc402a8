"""torchvision's classification CNNs, by torchvision's own names, and their ImageNet weights. Knows names and layers;
not adapters or cameras. torchvision takes a second to import: only who names one of its networks waits for it.
"""

from collections.abc import Iterator

from torch import nn

from fed_lorac.errors import ConfigError
from fed_lorac.models.published import Published
from fed_lorac.models.stems import cifar_stem
from fed_lorac.runtime.normalization import Normalization

__all__ = ["FAMILIES", "PACKAGE", "families", "has", "made", "names", "published"]

PACKAGE = "torchvision"

FAMILIES = {
    "alexnet": "AlexNet, arXiv 1404.5997",
    "convnext": "ConvNeXt, arXiv 2201.03545",
    "densenet": "DenseNet, arXiv 1608.06993",
    "efficientnet_b": "EfficientNet, arXiv 1905.11946",
    "efficientnet_v2": "EfficientNetV2, arXiv 2104.00298",
    "mnasnet": "MnasNet, arXiv 1807.11626",
    "mobilenet_v2": "MobileNetV2, arXiv 1801.04381",
    "mobilenet_v3": "MobileNetV3, arXiv 1905.02244",
    "regnet": "RegNet, arXiv 2003.13678",
    "resnet": "ResNet, arXiv 1512.03385",
    "resnext": "ResNeXt, arXiv 1611.05431",
    "shufflenet_v2": "ShuffleNetV2, arXiv 1807.11164",
    "squeezenet": "SqueezeNet, arXiv 1602.07360",
    "vgg": "VGG, arXiv 1409.1556",
    "wide_resnet": "Wide ResNet, arXiv 1605.07146",
}
"""How the names of a family begin -> what it is, and its paper."""

_AUXILIARY = "it trains auxiliary classifiers beside the one that is used"
_TRANSFORMER = "it is a vision transformer, without a convolution beyond its stem"
_REFUSED = {
    "googlenet": _AUXILIARY,
    "inception": _AUXILIARY,
    "maxvit": "its attention is over windows of one image size, and most of its weights are in no convolution",
    "swin": _TRANSFORMER,
    "vit": _TRANSFORMER,
}


def names() -> tuple[str, ...]:
    """Every network that may be named."""
    from torchvision import models  # noqa: PLC0415

    return tuple(name for name in models.list_models(module=models) if not _why_refused(name))


def families() -> Iterator[tuple[str, str, str]]:
    """Of each family how its names begin, which there are in words, and its paper."""
    for start, source in FAMILIES.items():
        its = [name for name in names() if name.startswith(start)]
        yield f"{start}*", f"{len(its)} network{'s' * (len(its) > 1)}, such as {its[-1]}", source


def has(name: str) -> bool:
    """Whether torchvision has it; `ConfigError` with the reason where it has, and it is no CNN for cameras."""
    from torchvision import models  # noqa: PLC0415

    if name not in models.list_models(module=models):
        return False
    if why := _why_refused(name):
        raise ConfigError(f"A model is a CNN that classifies images; {name} is not: {why}. Choose another model.name.")
    return True


def _why_refused(name: str) -> str:
    return next((why for start, why in _REFUSED.items() if name.startswith(start)), "")


def made(name: str, *, num_classes: int, stem: str = "cifar") -> nn.Module:
    """The network `name` from scratch, for (N, 3, H, W)."""
    from torchvision import models  # noqa: PLC0415

    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
    if stem == "cifar":
        cifar_stem(model)
    return model


def published(name: str) -> Published:
    """Where its ImageNet weights are: those of the original recipe, where there are several."""
    from torchvision.models import get_model_weights  # noqa: PLC0415

    kinds = get_model_weights(name)
    weights = getattr(kinds, "IMAGENET1K_V1", None) or kinds.DEFAULT  # type: ignore[attr-defined]
    pixels = weights.transforms()
    normalization = Normalization(tuple(pixels.mean), tuple(pixels.std))
    return Published(weights.url, weights.url.rpartition("/")[2], normalization)
