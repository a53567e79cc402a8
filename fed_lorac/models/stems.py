"""The stem of a network for small images: what comes before its first stage keeps their resolution. Knows layers; not
names of networks, weights or cameras.

LoRA-C (arXiv 2410.16954), section V: the 7x7 stride-2 stem of a ResNet becomes 3x3 stride 1, its max pooling goes. The
rule here says that of any network; of one that begins with 3x3 stride 1 already, as VGG does, it changes nothing.
"""

from torch import nn

from fed_lorac.errors import ConfigError

__all__ = ["STEMS", "cifar_stem", "first_convolution"]

STEMS = ("cifar", "native")
"""Whether the stem is for small images, or as published."""

_DEEPEST = 3  # convolutions that a stem has at most: those of ResNet-D (arXiv 1812.01187)


def first_convolution(model: nn.Module) -> str:
    """The name of the first 2-D convolution; empty where there is none."""
    return next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), "")


def cifar_stem(model: nn.Module) -> None:
    """Make the first convolution 3x3, stride 1, IN PLACE, drawn anew; and take away the max pooling behind it.

    The draw is from PyTorch's global generator, as a network's own: see `fed_lorac.models.build`.
    """
    name = first_convolution(model)
    conv = model.get_submodule(name)
    if not isinstance(conv, nn.Conv2d) or (conv.kernel_size, conv.stride) == ((3, 3), (1, 1)):
        return
    if odd := [key for key, _ in conv.named_parameters(recurse=False) if key not in ("weight", "bias")]:
        raise ConfigError(
            f"A stem for small images takes the place of a plain convolution; {name}, a {type(conv).__name__}, has "
            f'{", ".join(odd)} besides. Set model.stem = "native".'
        )
    stem = nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1, bias=conv.bias is not None)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    if stem.bias is not None:
        nn.init.zeros_(stem.bias)
    _put(model, name, stem)
    if pooling := _stem_pooling(model):
        _put(model, pooling, nn.Identity())


def _stem_pooling(model: nn.Module) -> str:
    """The name of the first max pooling, where it is of the stem; empty: there is none."""
    convolutions = 0
    name: str
    for name, module in model.named_modules():
        if isinstance(module, nn.MaxPool2d) and convolutions <= _DEEPEST:
            return name
        convolutions += isinstance(module, nn.Conv2d)
    return ""


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)
