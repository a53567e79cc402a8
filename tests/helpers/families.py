"""One small network of each of torchvision's families, of its own classes, with drawn weights and norms not fresh."""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torchvision.models import (
    DenseNet,
    EfficientNet,
    MobileNetV2,
    RegNet,
    ResNet,
    ShuffleNetV2,
    convnext,
    mobilenet_v3_small,
    regnet,
    resnet,
    squeezenet1_1,
    vgg,
)
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig

from fed_lorac.seeds import torch_stream

__all__ = ["FAMILIES", "family"]


def _efficientnet(num_classes: int) -> nn.Module:
    blocks = [
        FusedMBConvConfig(2, 3, 1, 8, 8, 1),
        MBConvConfig(4, 5, 2, 8, 16, 2, 1.0, 1.0),
        MBConvConfig(4, 3, 2, 16, 24, 1, 1.0, 1.0),
    ]
    model: nn.Module = EfficientNet(
        blocks, dropout=0.2, stochastic_depth_prob=0.2, num_classes=num_classes, last_channel=32
    )
    return model


def _convnext(num_classes: int) -> nn.Module:
    blocks = [CNBlockConfig(8, 16, 2), CNBlockConfig(16, None, 2)]
    model: nn.Module = convnext.ConvNeXt(blocks, stochastic_depth_prob=0.3, layer_scale=0.5, num_classes=num_classes)
    return model


def _regnet(num_classes: int) -> nn.Module:
    params = regnet.BlockParams.from_init_params(depth=4, w_0=16, w_a=16.0, w_m=2.0, group_width=8, se_ratio=0.25)
    model: nn.Module = RegNet(params, num_classes=num_classes)
    return model


def _vgg(num_classes: int) -> nn.Module:
    model: nn.Module = vgg.VGG(
        vgg.make_layers([8, "M", 16, "M", 16], batch_norm=True), num_classes=num_classes, init_weights=False
    )
    hidden = nn.Linear(16 * 49, 16)
    model.classifier = nn.Sequential(hidden, nn.ReLU(True), nn.Dropout(0.5), nn.Linear(16, num_classes))
    return model


FAMILIES: Mapping[str, Callable[[int], nn.Module]] = {
    "mobilenet-v2": lambda n: MobileNetV2(n, 0.25, [[1, 8, 1, 1], [4, 8, 2, 1], [4, 16, 1, 2]]),
    "mobilenet-v3": lambda n: mobilenet_v3_small(num_classes=n, width_mult=0.25),
    "efficientnet": _efficientnet,
    "regnet": _regnet,
    "convnext": _convnext,
    "shufflenet-v2": lambda n: ShuffleNetV2([2, 2, 2], [8, 8, 16, 24, 32], n),
    "squeezenet": lambda n: squeezenet1_1(num_classes=n),
    "densenet": lambda n: DenseNet(4, (2, 2), 8, num_classes=n),
    "resnext": lambda n: ResNet(resnet.Bottleneck, [1, 1, 1, 1], n, groups=4, width_per_group=4),
    "vgg": _vgg,
}


def family(name: str, num_classes: int = 3) -> nn.Module:
    """In eval mode, weights from a stream of its own: of a scale that keeps activations near one."""
    with torch.random.fork_rng():
        model, draw = FAMILIES[name](num_classes), torch_stream(0, "family")
    with torch.no_grad():
        for p in model.parameters():
            fan = max(1, p[0].numel()) if p.ndim > 1 else 1
            drawn = torch.randn(p.shape, generator=draw)
            p.copy_(drawn * (1.5 / fan) ** 0.5 if p.ndim > 1 else 1 + 0.1 * drawn)
        for b in model.buffers():
            if b.is_floating_point():
                b.uniform_(0.5, 1.5, generator=draw)
    return model.eval()
