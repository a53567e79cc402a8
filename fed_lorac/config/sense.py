"""Choices that contradict one another. Knows the sections side by side; not where they came from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fed_lorac.config import names

if TYPE_CHECKING:
    from fed_lorac.config.whole import Config

__all__ = ["contradictions"]


def contradictions(config: "Config") -> Iterator[str]:
    """Each contradiction as one message: the law, what came, the remedy."""
    yield from _fleet(config)
    yield from _method(config)
    yield from _model(config)
    yield from _data(config)


def _fleet(config: "Config") -> Iterator[str]:
    fleet = config.fleet
    if fleet.per_round > fleet.cameras:
        yield (
            f"A round cannot draw more cameras than there are; got fleet.per_round = {fleet.per_round} of "
            f"fleet.cameras = {fleet.cameras}. Lower the first or raise the second."
        )


def _method(config: "Config") -> Iterator[str]:
    adapter, strategy = config.adapter, config.strategy.name
    if (adapter.method == "full") != (strategy == "full"):
        yield (
            f"Full fine-tuning sends the network itself, every other method factors to be averaged by merged or "
            f"factors; got adapter.method = {adapter.method!r} with strategy.name = {strategy!r}. "
            f'Set both to "full", or neither.'
        )
    if adapter.kernel_wise and adapter.rank_mode == "r*k":
        yield (
            'Kernel-wise factors are (r, K) and (K, r), so their rank is r itself; got adapter.rank_mode = "r*k" with '
            'adapter.kernel_wise = true. Set adapter.rank_mode = "r" or "auto".'
        )
    if adapter.kernel_wise and adapter.method == "full":
        yield (
            "Full fine-tuning has no factors to lay out per kernel; got adapter.kernel_wise = true with "
            'adapter.method = "full". Set adapter.kernel_wise = false.'
        )


def _model(config: "Config") -> Iterator[str]:
    model, torchvisions = config.model, config.model.name in names.TORCHVISION_MODELS
    if torchvisions and (model.width not in (0, 64) or (model.norm, model.shortcut) != ("batch", "projection")):
        yield (
            f"{model.name} is torchvision's: width 64, batch norm, projection shortcuts; got model.width = "
            f"{model.width}, model.norm = {model.norm!r}, model.shortcut = {model.shortcut!r}. "
            f"Leave them at 0, batch, projection, or choose a CIFAR ResNet (resnet8 to resnet56)."
        )
    if model.weights == "imagenet" and not torchvisions:
        yield (
            f"ImageNet weights exist for {', '.join(names.TORCHVISION_MODELS)} alone; got model.weights = "
            f'"imagenet" with model.name = {model.name!r}. Choose one of these, or model.weights = "pretrain".'
        )
    if config.batch_norm.mode == "shared" and model.norm == "group":
        yield (
            'Only batch norm has statistics to share; got batch_norm.mode = "shared" with model.norm = "group". '
            'Set batch_norm.mode = "local", which then sends nothing.'
        )


def _data(config: "Config") -> Iterator[str]:
    data = config.data
    if data.download and data.name not in names.DOWNLOADABLE:
        yield (
            f"Only {' and '.join(names.DOWNLOADABLE)} can be downloaded; got data.download = true with data.name = "
            f"{data.name!r}. Set data.download = false."
        )
    if data.name == "folder" and not data.root:
        yield (
            'An image folder must be named; got data.name = "folder" with an empty data.root. '
            "Set data.root to the folder that holds one sub-folder per class."
        )
    if data.name == "cifar10c" and config.model.weights == "pretrain":
        yield (
            'A base network is pretrained on the cloud\'s images, CIFAR-10-C has none; got data.name = "cifar10c" with '
            'model.weights = "pretrain". Set model.weights = "shipped" or a path.'
        )
