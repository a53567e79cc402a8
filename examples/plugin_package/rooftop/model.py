"""A model: three convolutions and a classifier, for small images."""

from torch import nn

__all__ = ["small"]


def small(num_classes: int, *, channels: int = 8) -> nn.Module:
    """Images (N, 3, H, W) -> logits (N, num_classes); about 5,000 parameters with 8 channels.

    Args:
        num_classes: of the data set.
        channels: of the first convolution; the others have twice as many.
    """

    def stage(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    wide = 2 * channels
    features = [*stage(3, channels, 1), *stage(channels, wide, 2), *stage(wide, wide, 2)]
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, num_classes))
