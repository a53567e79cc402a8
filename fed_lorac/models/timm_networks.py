"""timm's CNNs, named "timm/NAME", and their ImageNet weights. Knows names and layers; not adapters or cameras. timm is
an extra, and takes seconds to import: only who names one of its networks needs it.

Wightman 2019, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models.
"""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

from torch import nn

from fed_lorac.errors import ConfigError
from fed_lorac.models.published import Published
from fed_lorac.models.stems import cifar_stem
from fed_lorac.runtime.normalization import Normalization

__all__ = ["FAMILIES", "PACKAGE", "PREFIX", "families", "has", "made", "names", "published"]

PACKAGE = "timm"
PREFIX = "timm/"

FAMILIES = (
    *("byobnet", "convmixer", "convnext", "cspnet", "cspnext", "densenet", "dla", "dpn", "efficientnet", "fasternet"),
    *("ghostnet", "hardcorenas", "hgnet", "hrnet", "inception_next", "inception_resnet_v2", "inception_v3"),
    *("inception_v4", "lcnetv2", "mobilenetv3", "nasnet", "nfnet", "pnasnet", "rdnet", "regnet", "repghost", "res2net"),
    *("resnest", "resnet", "resnetv2", "rexnet", "selecsls", "senet", "sknet", "starnet", "tresnet", "vgg", "vovnet"),
    *("xception", "xception_aligned"),
)
"""Modules of `timm.models` whose networks are CNNs."""


def names() -> tuple[str, ...]:
    """Every network that may be named; none where timm is not installed."""
    if find_spec("timm") is None:
        return ()
    import timm  # noqa: PLC0415

    return tuple(f"{PREFIX}{name}" for name in timm.list_models() if _family(name) in FAMILIES)


def families() -> Iterator[tuple[str, str, str]]:
    """How the names begin, which there are in words, and their source: one row, read without importing timm."""
    missing = "" if find_spec("timm") else ': pip install "fed-lorac[timm]"'
    source = "PyTorch Image Models, Wightman 2019, github.com/huggingface/pytorch-image-models"
    yield f"{PREFIX}*", f"hundreds of networks, such as {PREFIX}resnet26{missing}", source


def has(name: str) -> bool:
    """Whether timm has it; `ConfigError` with the reason where it has, and it is no CNN, or timm is not installed."""
    if not name.startswith(PREFIX):
        return False
    if find_spec("timm") is None:
        raise ConfigError(f'{name} is of timm, which is not installed. Run pip install "fed-lorac[timm]".')
    if not (family := _family(name.removeprefix(PREFIX))):
        return False
    if family not in FAMILIES:
        raise ConfigError(
            f"A model is a CNN that classifies images; {name} is of timm's {family}, which is none: a vision "
            "transformer has no convolution beyond its stem, and a hybrid few. Choose another model.name, of timm's "
            f"{', '.join(FAMILIES)}."
        )
    return True


@cache
def _family(name: str) -> str:
    """The module of `timm.models` that a network is of; empty where there is none. A tag of weights may follow."""
    from timm.models import is_model, model_entrypoint  # noqa: PLC0415

    plain = name.partition(".")[0]
    return str(model_entrypoint(plain).__module__).rpartition(".")[2] if is_model(plain) else ""


def made(name: str, *, num_classes: int, stem: str = "cifar") -> nn.Module:
    """The network `name` from scratch, for (N, 3, H, W)."""
    import timm  # noqa: PLC0415

    model: nn.Module = timm.create_model(name.removeprefix(PREFIX).partition(".")[0], num_classes=num_classes)
    if stem == "cifar":
        cifar_stem(model)
    return model


def published(name: str) -> Published:
    """Where its ImageNet weights are, of the tag behind the name ("timm/resnet26.bt_in1k"), or timm's default."""
    from timm.models import get_pretrained_cfg  # noqa: PLC0415

    found = get_pretrained_cfg(name.removeprefix(PREFIX))
    if found is None or not found.hf_hub_id:
        raise ConfigError(
            f"timm publishes no weights of {name}. Choose another name or tag, or set model.weights to "
            '"none", "pretrain" or a checkpoint.'
        )
    mean, std = (tuple(map(float, values)) for values in (found.mean, found.std))
    file = f"{found.hf_hub_id.rpartition('/')[2]}.safetensors"
    url = f"https://huggingface.co/{found.hf_hub_id}/resolve/main/model.safetensors"
    return Published(url, file, Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2])))
