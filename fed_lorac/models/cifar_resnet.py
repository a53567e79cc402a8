"""CIFAR ResNets: three stages on 32x32 inputs. Knows layers; not adapters, cameras or files.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), section 4.2: depth 6n + 2.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fed_lorac.errors import ConfigError

__all__ = ["NORMS", "SHORTCUTS", "WIDTH", "CifarResNet", "resnet8", "resnet14", "resnet20", "resnet32", "resnet56"]


def _groups(channels: int) -> int:
    """Groups of group norm: one for every 16 channels."""
    return max(1, channels // 16)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(_groups(channels), channels),
}
SHORTCUTS = ("projection", "identity")
WIDTH = 16
"""Channels of the first stage, where none are named."""


class IdentityShortcut(nn.Module):
    """He's option A: subsample and pad the new channels with zeros; no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, out_channels - in_channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Shape (N, in, H, W) to (N, out, H/stride, W/stride)."""
        before = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))


def _shortcut(kind: str, norm: Callable[[int], nn.Module], c_in: int, c_out: int, stride: int) -> nn.Module | None:
    if stride == 1 and c_in == c_out:
        return None
    if kind == "identity":
        return IdentityShortcut(c_in, c_out, stride)
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), norm(c_out))


class Block(nn.Module):
    """conv - norm - relu - conv - norm, plus the shortcut, then relu."""

    def __init__(self, c_in: int, c_out: int, stride: int, norm: Callable[[int], nn.Module], shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = norm(c_out)
        self.downsample = _shortcut(shortcut, norm, c_in, c_out, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d i j"]:
        """Shape (N, in, H, W) to (N, out, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class CifarResNet(nn.Module):
    """A ResNet for 32x32 images, of depth 6n + 2: three stages of n blocks.

    The stages have `width`, 2 * `width` and 4 * `width` channels; width 0 is WIDTH.
    """

    def __init__(
        self, depth: int, *, num_classes: int = 10, width: int = 0, norm: str = "batch", shortcut: str = "projection"
    ) -> None:
        super().__init__()
        width = width or WIDTH
        make_norm, blocks = _checked(depth, width, norm, shortcut), (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = make_norm(width)
        self.layer1 = _stage(width, width, blocks, 1, make_norm, shortcut)
        self.layer2 = _stage(width, 2 * width, blocks, 2, make_norm, shortcut)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2, make_norm, shortcut)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """Images (N, 3, H, W), normalised, to logits (N, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _stage(
    c_in: int, c_out: int, blocks: int, stride: int, norm: Callable[[int], nn.Module], shortcut: str
) -> nn.Sequential:
    first = Block(c_in, c_out, stride, norm, shortcut)
    return nn.Sequential(first, *(Block(c_out, c_out, 1, norm, shortcut) for _ in range(blocks - 1)))


def _checked(depth: int, width: int, norm: str, shortcut: str) -> Callable[[int], nn.Module]:
    if (depth - 2) % 6 or depth < 8 or width < 1:
        raise ConfigError(
            f"A CIFAR ResNet has depth 6n + 2 (8, 14, 20, ...) and a width of at least 1; "
            f"got depth {depth}, width {width}. Choose another depth or width."
        )
    if norm == "group" and (odd := next((c for c in (width, 2 * width, 4 * width) if c % _groups(c)), 0)):
        raise ConfigError(
            f"Group norm divides a stage's channels into equal groups, one for every 16; {odd} channels, of width "
            f"{width}, make no {_groups(odd)} equal groups. Set width to a multiple of 16, such as "
            f'{16 * max(1, width // 16)}, or norm to "batch".'
        )
    if norm not in NORMS or shortcut not in SHORTCUTS:
        raise ConfigError(
            f"norm is one of {', '.join(NORMS)} and shortcut one of {', '.join(SHORTCUTS)}; "
            f"got {norm!r} and {shortcut!r}."
        )
    return NORMS[norm]


resnet8, resnet14, resnet20, resnet32, resnet56 = (partial(CifarResNet, depth) for depth in (8, 14, 20, 32, 56))
