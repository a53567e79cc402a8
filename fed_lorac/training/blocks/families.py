"""torchvision's networks side by side: which of their containers run as they are, and what the others do instead. Knows
containers by name, as torchvision takes a second to import; not weights, steps or data.

A container runs as it is, on (B, N*C, H, W), where its own forward acts on each channel alike: residual sums, products
with a squeezed copy, pooling, flattening. Where it joins, splits or shuffles channels, they are every camera's own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from fed_lorac.training.blocks.layers import Side, SideLayerNorm
from fed_lorac.training.blocks.layers import side_of as side_of_layer

__all__ = ["Form", "contains", "form_of", "passes", "side_of"]

Form = Callable[[Any, Any], Tensor]
"""A container's forward: the container, whose layers are side by side, and what it is called with."""

_CONTAINERS: Mapping[str, tuple[str, ...]] = {
    "models.resnet": ("ResNet", "BasicBlock", "Bottleneck"),
    "models.mobilenetv2": ("MobileNetV2", "InvertedResidual"),
    "models.mobilenetv3": ("MobileNetV3", "InvertedResidual"),
    "models.mnasnet": ("MNASNet", "_InvertedResidual"),
    "models.efficientnet": ("EfficientNet", "MBConv", "FusedMBConv"),
    "models.regnet": ("RegNet", "SimpleStemIN", "AnyStage", "ResBottleneckBlock", "BottleneckTransform"),
    "models.convnext": ("ConvNeXt",),
    "models.vgg": ("VGG",),
    "models.alexnet": ("AlexNet",),
    "models.squeezenet": ("SqueezeNet", "Fire"),
    "models.shufflenetv2": ("ShuffleNetV2", "InvertedResidual"),
    "models.densenet": ("DenseNet", "_DenseBlock", "_DenseLayer", "_Transition"),
    "ops.misc": ("Conv2dNormActivation", "SqueezeExcitation"),
}


def contains(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module, by its class `kind`, does no more than call the layers in it, with every channel alike, or has
    a form here."""
    own = vars(module)
    if own.get("drop_rate") or own.get("memory_efficient"):  # DenseNet: dropout by a function, and a second forward
        return False
    return kind.__name__ in _CONTAINERS.get(_place(kind), ())


def form_of(module: nn.Module) -> Form | None:
    """The forward that a container has side by side; None: its own."""
    return _FORMS.get((_place(type(module)), type(module).__name__))


def side_of(layer: nn.Module) -> Callable[[Sequence[nn.Module]], Side] | None:
    """What puts layers like this one side by side; None where nothing here can."""
    return _SIDES.get((_place(type(layer)), type(layer).__name__)) or side_of_layer(layer)


def passes(module: nn.Module) -> bool:
    """Whether this is torchvision's Permute that takes the channels last, or back again."""
    if (_place(type(module)), type(module).__name__) != ("ops.misc", "Permute"):
        return False
    return list(cast(Any, module).dims) in ([0, 2, 3, 1], [0, 3, 1, 2])


def _place(kind: type[nn.Module]) -> str:
    return kind.__module__.removeprefix("torchvision.")


def _fire(fire: Any, x: Tensor) -> Tensor:
    """SqueezeNet: 1x1 and 3x3 expansions, joined."""
    x = fire.squeeze_activation(fire.squeeze(x))
    small, large = fire.expand1x1_activation(fire.expand1x1(x)), fire.expand3x3_activation(fire.expand3x3(x))
    return _joined((small, large), fire.squeeze.count)


def _shuffle_unit(unit: Any, x: Tensor) -> Tensor:
    """ShuffleNetV2: one half of the channels and a branch of the other, or two branches, their channels interleaved."""
    n = unit.branch2[0].count
    if unit.stride == 1:
        each = x.unflatten(1, (n, 2, -1))
        left, right = each[:, :, 0].flatten(1, 2), unit.branch2(each[:, :, 1].flatten(1, 2))
    else:
        left, right = unit.branch1(x), unit.branch2(x)
    both = torch.stack([part.unflatten(1, (n, -1)) for part in (left, right)], 3)
    return both.flatten(1, 3)


def _dense_layer(layer: Any, features: Tensor | Sequence[Tensor]) -> Tensor:
    """DenseNet: a layer on all features so far."""
    found = [features] if isinstance(features, Tensor) else features
    x = layer.conv1(layer.relu1(layer.norm1(_joined(found, layer.conv1.count))))
    y: Tensor = layer.conv2(layer.relu2(layer.norm2(x)))
    return y


def _dense_block(block: Any, x: Tensor) -> Tensor:
    """DenseNet: the features of every layer."""
    features, layers = [x], list(block.values())
    for layer in layers:
        features.append(layer(features))
    return _joined(features, layers[0].conv1.count)


def _joined(parts: Sequence[Tensor], cameras: int) -> Tensor:
    """Each camera's channels of every part, one after the other."""
    return torch.cat([part.unflatten(1, (cameras, -1)) for part in parts], 2).flatten(1, 2)


_FORMS: Mapping[tuple[str, str], Form] = {
    ("models.squeezenet", "Fire"): _fire,
    ("models.shufflenetv2", "InvertedResidual"): _shuffle_unit,
    ("models.densenet", "_DenseLayer"): _dense_layer,
    ("models.densenet", "_DenseBlock"): _dense_block,
}


class SideLayerNorm2d(SideLayerNorm):
    """N of ConvNeXt's norms over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*C, H, W) to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SideScaledBlock(Side):
    """N of ConvNeXt's blocks: x + layer_scale * block(x), its stochastic depth off."""

    inner = ("block",)
    block: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*C, H, W) to the same shape."""
        return x + self.own()["layer_scale"].flatten(0, 1) * cast(Tensor, self.block(x))


_SIDES: Mapping[tuple[str, str], Callable[[Sequence[nn.Module]], Side]] = {
    ("models.convnext", "LayerNorm2d"): SideLayerNorm2d,
    ("models.convnext", "CNBlock"): SideScaledBlock,
}
