"""Choices that contradict one another. Knows the sections side by side; not where they came from."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fed_lorac.config import names

if TYPE_CHECKING:
    from fed_lorac.config.whole import Config

__all__ = ["contradictions", "fixed_basis"]


def contradictions(config: "Config") -> Iterator[str]:
    """Each contradiction as one message: the law, what came, the remedy."""
    yield from _fleet(config)
    yield from _method(config)
    yield from _codec(config)
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
    if strategy not in (allowed := _averaged_by(adapter.method)):
        yield (
            f"{_WHY[allowed]}; got adapter.method = {adapter.method!r} with strategy.name = {strategy!r}. "
            f"Set strategy.name to {' or '.join(map(repr, allowed))}, or choose another method."
        )
    server = config.strategy.server
    if strategy == "factors" and server != "average":
        yield (
            "A server's optimizer steps by the mean delta, which factors does not form; got strategy.server = "
            f'{server!r} with strategy.name = "factors". Set strategy.server = "average", or strategy.name = "merged".'
        )
    if strategy == "merged" and config.strategy.downlink == "stack" and server in ("adam", "yogi"):
        yield (
            f"{server} acts on each entry of a dense delta, and no stack of factors is left; got strategy.server = "
            f'{server!r} with strategy.downlink = "stack". Set the downlink to "dense" or "svd", or the server to '
            '"momentum".'
        )
    centre = config.strategy.centre
    if strategy == "factors" and centre != "mean":
        yield (
            "A centre is of the cameras' deltas, which factors does not form; got strategy.centre = "
            f'{centre!r} with strategy.name = "factors". Set strategy.centre = "mean", or strategy.name = "merged".'
        )
    elementwise = centre in ("median", "trimmed") or (centre == "clipped" and config.strategy.noise > 0)
    if strategy == "merged" and config.strategy.downlink == "stack" and elementwise:
        yield (
            f"{centre} acts on each entry of dense deltas, and no stack of factors is left; got strategy.centre = "
            f'{centre!r} with strategy.downlink = "stack". Set the downlink to "dense" or "svd".'
        )
    if adapter.kernel_wise and adapter.rank_mode == "r*k":
        yield (
            'Kernel-wise factors are (r, K) and (K, r), so their rank is r itself; got adapter.rank_mode = "r*k" with '
            'adapter.kernel_wise = true. Set adapter.rank_mode = "r" or "auto".'
        )
    if adapter.kernel_wise and adapter.method != "lora-c":
        yield (
            "Factors per kernel are an ablation of lora-c; got adapter.kernel_wise = true with "
            f"adapter.method = {adapter.method!r}. Set adapter.kernel_wise = false."
        )


def _averaged_by(method: str) -> tuple[str, ...]:
    """The strategies that a method's states can go through."""
    if method == "full":
        return ("full", "plain")
    return ("merged", "factors") if method in names.FACTORED else ("plain", "merged")


_WHY: dict[tuple[str, ...], str] = {
    ("full", "plain"): "Full fine-tuning sends the network itself, whose mean is taken as it is",
    ("merged", "factors"): (
        "Factors A and B are averaged as products by merged, or apart, which is not the mean, by factors"
    ),
    ("plain", "merged"): "What is trained as it is has no factors: its changes are averaged as they are",
}


def fixed_basis(config: "Config") -> bool:
    """Whether a camera's tensors mean the same in every round, so that what one round left out may be sent in another.

    Dense changes do, and so do factors that live on from round to round. Under the other strategies A is drawn, or
    starts, anew each round, and what was left out of B belongs to an A that is gone.
    """
    return config.adapter.method in names.FIXED_BASIS or config.strategy.name == "factors"


def _codec(config: "Config") -> Iterator[str]:
    codec, method, strategy = config.codec, config.adapter.method, config.strategy.name
    if codec.error_feedback and not fixed_basis(config):
        yield (
            "Error feedback adds what one round left out to the next, which has a meaning where the basis stays; got "
            f"codec.error_feedback = true with adapter.method = {method!r}, whose A is drawn anew each round under "
            f"strategy.name = {strategy!r}. Set it to false, or choose strategy factors or one of "
            f"{', '.join(names.FIXED_BASIS)}."
        )
    if codec.error_feedback and codec.up in names.LOSSLESS:
        yield (
            "Error feedback is for codecs that lose something; got codec.error_feedback = true with codec.up = "
            f"{codec.up!r}. Set it to false, or choose another codec.up."
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
