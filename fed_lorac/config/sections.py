"""The settings, section by section, with their defaults. Knows keys, types and ranges; not files, cameras or tensors.

Every value is a scalar, because Flower's run-config carries no other: a list is text with commas. What matters only
under one choice is a table of its own; choices that contradict one another are refused in `compatibility`.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from fed_lorac import registry
from fed_lorac.config import names, tables
from fed_lorac.config.section import Section
from fed_lorac.errors import ConfigError
from fed_lorac.registry import Kind
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.normalization import NORMALIZATIONS, Normalization
from fed_lorac.runtime.settings import items, setting
from fed_lorac.runtime.spelling import toml

__all__ = [
    "AdapterConfig",
    "BatchNormConfig",
    "CodecConfig",
    "DataConfig",
    "FleetConfig",
    "ModelConfig",
    "RayConfig",
    "RunConfig",
    "StrategyConfig",
]


@dataclass(frozen=True)
class RunConfig(Section):
    """How long, on what, and where the record goes."""

    section: ClassVar[str] = "run"
    choices: ClassVar = {"engine": Kind({"fleet": tables.FleetEngine, "flower": tables.FlowerEngine})}
    rounds: int = setting(10, "rounds of federated averaging", least=1)
    seed: int = setting(0, "the seed from which all random numbers are drawn", least=0)
    threads: int = setting(1, "CPU threads of each worker; results repeat only at equal threads", least=1, most=1024)
    precision: str = setting("auto", "arithmetic of training; auto: by the machine, recorded", choices=names.PRECISIONS)
    device: str = setting("cpu", "where cameras train", choices=names.DEVICES)
    engine: str = setting("fleet", "what carries the messages: our grid, or Flower's runtime", choices=names.ENGINES)
    workers: int = setting(1, "processes that train cameras; 1: this process, without Ray", least=1)
    evaluate_every: int = setting(1, "rounds between evaluations; the last round is always evaluated", least=1)
    target_accuracy: float = setting(0.0, "accuracy whose cost the summary tells; 0: none", least=0, below=1)
    out: str = setting("", "the run's folder; empty: a new one")

    @property
    def round_timeout_s(self) -> float:
        """Seconds after which a reply is too late for its round."""
        if self.engine == "flower":
            return self.table(tables.FlowerEngine).round_timeout_s
        return self.table(tables.FleetEngine).round_timeout_s


@dataclass(frozen=True)
class RayConfig(Section):
    """The cluster, where there are several workers."""

    section: ClassVar[str] = "ray"
    address: str = setting("", "host:port of a running cluster; empty: RAY_ADDRESS, or a Ray of this run's own")


@dataclass(frozen=True)
class ModelConfig(Section):
    """The base network and its weights."""

    section: ClassVar[str] = "model"
    choices: ClassVar = {
        "name": replace(registry.MODELS, declared=dict.fromkeys(names.CIFAR_MODELS, tables.CifarResNet)),
        "weights": Kind({"pretrain": tables.Pretrain}),
    }
    name: str = setting(
        "resnet8", "the architecture", choices=registry.MODELS.names, outside=registry.MODELS.is_outside
    )
    weights: str = setting("shipped", "shipped, none, pretrain, imagenet, or the path of a checkpoint")
    normalization: str = setting("auto", 'of pixels: a name, or "mean / deviation"; auto: as the weights were trained')

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


@dataclass(frozen=True)
class DataConfig(Section):
    """The images, before any weather."""

    section: ClassVar[str] = "data"
    choices: ClassVar = {
        "name": replace(
            registry.DATASETS,
            declared={**dict.fromkeys(names.DOWNLOADABLE, tables.CifarData), "folder": tables.FolderData},
        )
    }
    name: str = setting("digits", "the data set", choices=registry.DATASETS.names, outside=registry.DATASETS.is_outside)
    root: str = setting("", "folder of the data set, seen from FED_LORAC_DATA, or from here where that is not set")
    image_size: int = setting(32, "height and width of an image in pixels, a multiple of 8", least=8, most=1024)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % 8:
            raise ConfigError(
                f"data.image_size must be a multiple of 8, or some weather does not fit it; got {self.image_size}. "
                f"The nearest is {max(8, round(self.image_size / 8) * 8)}."
            )


@dataclass(frozen=True)
class FleetConfig(Section):
    """Who the cameras are, what they see, and how they are linked."""

    section: ClassVar[str] = "fleet"
    choices: ClassVar = {
        "schedule": Kind({"front": tables.Front, "daily": tables.Daily, "walk": tables.Walk}),
        "label_skew": Kind({"dirichlet": tables.Dirichlet}),
        "corruptions": replace(registry.CORRUPTIONS, declared={}),
        "link": replace(registry.LINKS, declared={}),
    }
    cameras: int = setting(12, "cameras in the fleet", least=1)
    per_round: int = setting(12, "cameras that take part in a round, drawn at random", least=1)
    images: int = setting(0, "training images of a camera (their mean under dirichlet); 0: all are assigned", least=0)
    eval_images: int = setting(0, "evaluation images of a camera; 0: all are assigned", least=0)
    corruptions: str = setting(
        "fog, snow, gaussian_noise",
        "corruptions, assigned to cameras round robin",
        choices=registry.CORRUPTIONS.names,
        listed=True,
        outside=registry.CORRUPTIONS.is_outside,
    )
    severities: str = setting(
        "3, 4, 5", "severities, assigned so that each corruption meets each", choices=names.SEVERITIES, listed=True
    )
    schedule: str = setting(
        "constant", "how a camera's weather changes from round to round", choices=names.WEATHER_SCHEDULES
    )
    stream: str = setting("iid", "order of a camera's images: shuffled (iid), or class by class", choices=names.STREAMS)
    label_skew: str = setting("iid", "how the classes differ between cameras", choices=names.LABEL_SKEWS)
    labelled_share: float = setting(0.1, 'share of labels under local.objective = "mixed"', above=0, most=1)
    availability: float = setting(1.0, "probability that a camera can be reached in a round", above=0, most=1)
    dropout: float = setting(0.0, "probability that a camera's reply is lost", least=0, below=1)
    link: str = setting(
        "lte-m",
        "radio links, assigned to cameras",
        choices=registry.LINKS.names,
        listed=True,
        outside=registry.LINKS.is_outside,
    )
    link_assignment: str = setting("round_robin", "how links are assigned", choices=names.LINK_ASSIGNMENTS)
    image_time_s: float = setting(0.0, "simulated seconds to train on one image at speed 1", least=0)
    speeds: float | str = setting(1.0, "training speeds, assigned to cameras round robin", above=0, listed=True)
    round_s: float = setting(0.0, "simulated seconds after which a reply is late; 0: never", least=0)

    @property
    def speed_factors(self) -> tuple[float, ...]:
        """`speeds`, parsed."""
        return tuple(float(word) for word in items(str(self.speeds)))

    @property
    def corruption_names(self) -> tuple[str, ...]:
        """`corruptions`, parsed."""
        return items(self.corruptions)

    @property
    def severity_levels(self) -> tuple[int, ...]:
        """`severities`, parsed: whole numbers from 1 to 5."""
        return tuple(int(word) for word in items(self.severities))

    @property
    def link_names(self) -> tuple[str, ...]:
        """`link`, parsed."""
        return items(self.link)


@dataclass(frozen=True)
class AdapterConfig(Section):
    """What a camera trains."""

    section: ClassVar[str] = "adapter"
    choices: ClassVar = {"method": registry.ADAPTERS}
    shared: ClassVar = {
        "method": {key: key for key in ("rank", "alpha", "train_first_conv", "train_classifier")},
    }
    method: str = setting(
        "lora-c", "the adapter", choices=registry.ADAPTERS.names, outside=registry.ADAPTERS.is_outside
    )
    rank: int | str = setting(2, "rank r, or several, assigned to cameras round robin", least=1, listed=True)
    alpha: float = setting(
        4.0, "delta = alpha / r * B A, where r is the (largest) rank; the paper uses alpha = 2 r", above=0
    )
    train_first_conv: bool = setting(True, "train and send the first convolution's whole weight")
    train_classifier: bool = setting(True, "train and send the classifier's whole weight")

    @property
    def ranks(self) -> tuple[int, ...]:
        """`rank`, parsed: those that are assigned to cameras round robin."""
        return tuple(int(word) for word in items(str(self.rank)))


@dataclass(frozen=True)
class BatchNormConfig(Section):
    """What becomes of batch-norm statistics."""

    section: ClassVar[str] = "batch_norm"
    choices: ClassVar = {"mode": Kind({"local": tables.LocalStatistics})}
    mode: str = setting(
        "local",
        "statistics are the camera's own (local), never change (frozen), or are averaged and billed (shared)",
        choices=names.BATCH_NORMS,
    )


@dataclass(frozen=True)
class StrategyConfig(Section):
    """What the server does with the replies."""

    section: ClassVar[str] = "strategy"
    choices: ClassVar = {
        "name": registry.STRATEGIES,
        "aggregator": registry.AGGREGATORS,
        "server_optimizer": registry.SERVER_OPTIMIZERS,
    }
    shared: ClassVar = {"name": {"server_lr": "server_lr"}, "server_optimizer": {"server_lr": "lr"}}
    name: str = setting(
        "merged",
        "what is averaged, and what goes down",
        choices=registry.STRATEGIES.names,
        outside=registry.STRATEGIES.is_outside,
    )
    aggregator: str = setting("mean", "how the cameras' deltas become one", choices=registry.AGGREGATORS.names)
    server_optimizer: str = setting(
        "sgd", "how the server steps along that delta", choices=registry.SERVER_OPTIMIZERS.names
    )
    server_lr: float = setting(1.0, "learning rate of the server", above=0)
    quorum: float = setting(
        0.5, "share of the drawn cameras that must reply for a round to count; at least one camera", least=0, most=1
    )

    def strategy(self) -> Any:
        """The strategy with its settings; its aggregator and server optimizer are built too, where it takes them."""
        takes = {one.name for one in fields(registry.STRATEGIES.load(self.name))}
        parts = {key: self.build(key) for key in ("aggregator", "server_optimizer") if key in takes}
        return self.build("name", **parts)


@dataclass(frozen=True)
class CodecConfig(Section):
    """How numbers are encoded for the radio."""

    section: ClassVar[str] = "codec"
    choices: ClassVar = dict.fromkeys(("up", "down"), replace(registry.CODECS, declared={"topk": tables.Topk}))
    up: str = setting(
        "fp32", "from camera to server", choices=registry.CODECS.names, outside=registry.CODECS.is_outside
    )
    down: str = setting(
        "fp32", "from server to camera", choices=registry.CODECS.names, outside=registry.CODECS.is_outside
    )
    error_feedback: bool = setting(False, "add to each frame what the codec lost of the camera's frame before")
