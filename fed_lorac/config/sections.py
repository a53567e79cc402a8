"""The settings, section by section, with their defaults. Knows keys, types and ranges; not files, cameras or tensors.

Every value is a scalar, because Flower's run-config carries no other. A setting whose branch is not chosen
(`fleet.dirichlet_alpha` under iid, say) is ignored; choices that contradict one another are refused in `sense`.
"""

import re
from dataclasses import dataclass, fields
from typing import ClassVar

from fed_lorac.config import names
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.normalization import NORMALIZATIONS, Normalization
from fed_lorac.runtime.settings import Rule, items, setting
from fed_lorac.runtime.spelling import toml

__all__ = [
    "AdapterConfig",
    "BatchNormConfig",
    "CodecConfig",
    "DataConfig",
    "FleetConfig",
    "LocalConfig",
    "ModelConfig",
    "RayConfig",
    "RunConfig",
    "Section",
    "StrategyConfig",
]


_POSITIVE = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True)
class Section:
    """One table of the config: checks each of its values as it is built, so no invalid one exists."""

    section: ClassVar[str]

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """Key (without the section) -> its rule, in the order of declaration."""
        return {f.name: f.metadata["rule"] for f in fields(cls)}

    def __post_init__(self) -> None:
        for key, rule in self.rules().items():
            value = rule.checked(f"{self.section}.{key}", getattr(self, key))
            object.__setattr__(self, key, value)  # a whole number given for a float becomes one


@dataclass(frozen=True)
class RunConfig(Section):
    """How long, on what, and where the record goes."""

    section: ClassVar[str] = "run"
    rounds: int = setting(10, "rounds of federated averaging", least=1)
    seed: int = setting(0, "the one seed that every random stream descends from", least=0)
    threads: int = setting(
        1, "CPU threads per worker; results repeat exactly at equal threads only", least=1, most=1024
    )
    precision: str = setting("auto", "arithmetic of training; auto is recorded", choices=names.PRECISIONS)
    engine: str = setting("fleet", "who carries the messages: our grid, or Flower's runtime", choices=names.ENGINES)
    workers: int = setting(1, "processes that train cameras; 1: this one, without Ray", least=1)
    block_size: int = setting(0, "cameras that train side by side; 0: by the rule for model and images", least=0)
    block_timeout_s: float = setting(600.0, "a worker that is longer at one block is replaced", above=0)
    device: str = setting("cpu", "where cameras train", choices=names.DEVICES)
    round_timeout_s: float = setting(3600.0, "a reply later than this is left out", above=0)
    target_accuracy: float = setting(0.0, "the summary says what it took to reach it; 0: none", least=0, below=1)
    evaluate_every: int = setting(1, "rounds between evaluations; the last round is always evaluated", least=1)
    checkpoint_every: int = setting(1, "rounds between checkpoints, for --resume; 0: none", least=0)
    out: str = setting("", "the run's directory; empty: a new one")


@dataclass(frozen=True)
class RayConfig(Section):
    """The cluster, where there are several workers."""

    section: ClassVar[str] = "ray"
    address: str = setting("", "a running cluster's host:port; empty: RAY_ADDRESS, or a Ray of this run's own")


@dataclass(frozen=True)
class ModelConfig(Section):
    """The base network and its weights."""

    section: ClassVar[str] = "model"
    name: str = setting("resnet8", "the architecture", choices=names.MODELS)
    width: int = setting(0, "channels of the first stage; 0: the model's own", least=0)
    norm: str = setting("batch", "normalisation layers", choices=names.NORMS)
    shortcut: str = setting("projection", "shortcuts where the shape changes", choices=names.SHORTCUTS)
    weights: str = setting("shipped", "shipped, none, pretrain, imagenet, or a path to a checkpoint")
    normalization: str = setting("auto", "of pixels; auto: the weights' own. A name, or mean / deviation")
    pretrain_epochs: int = setting(70, "passes over the cloud's images where a base is trained", least=1)

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
    name: str = setting("digits", "the data set", choices=names.DATASETS)
    root: str = setting("", "its folder, from FED_LORAC_DATA where that is set, else from here")
    download: bool = setting(False, "fetch it where it is missing (cifar10, cifar100)")
    image_size: int = setting(32, "pixels a side, a multiple of 8", least=8, most=1024)
    cloud_share: float = setting(0.6, "cloud's share of each class, where a data set has test files", above=0, below=1)

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
    cameras: int = setting(12, "cameras in the fleet", least=1)
    per_round: int = setting(12, "cameras drawn each round", least=1)
    images: int = setting(0, "adaptation images a camera (their mean under dirichlet); 0: deal all", least=0)
    eval_images: int = setting(0, "evaluation images a camera; 0: deal all", least=0)
    corruptions: str = setting(
        "fog, snow, gaussian_noise", "weathers, dealt round robin", choices=names.CORRUPTIONS, listed=True
    )
    severities: str = setting(
        "3, 4, 5", "severities, dealt so that every weather meets each", choices=names.SEVERITIES, listed=True
    )
    schedule: str = setting("constant", "how weather goes from round to round", choices=names.WEATHER_SCHEDULES)
    period: int = setting(6, "rounds of a front over a camera, of a day, between a walk's corruptions", least=2)
    lag: float = setting(1.0, "rounds that a front takes from one camera to the next", least=0)
    stream: str = setting("iid", "a camera's images in time: shuffled, or class by class", choices=names.STREAMS)
    label_skew: str = setting("iid", "how labels differ between cameras", choices=names.LABEL_SKEWS)
    dirichlet_alpha: float = setting(0.5, "concentration under dirichlet: smaller is more skewed", least=0.001)
    availability: float = setting(1.0, "chance that a camera can be reached in a round", above=0, most=1)
    dropout: float = setting(0.0, "chance that an asked camera's reply is lost", least=0, below=1)
    link: str = setting("lte-m", "radio classes, dealt round robin", choices=names.LINKS, listed=True)
    link_deal: str = setting("robin", "how they are dealt: in turn, or drawn by lot", choices=names.LINK_DEALS)
    image_time_s: float = setting(0.0, "simulated seconds that training on one image takes at speed 1", least=0)
    speeds: str = setting("1", "how many times as fast cameras train, dealt round robin", listed=True)
    round_s: float = setting(0.0, "simulated seconds after which a reply is late; 0: none is", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in items(self.speeds):
            if not _POSITIVE.fullmatch(word) or not float(word) > 0:
                raise ConfigError(f'fleet.speeds must be numbers above 0, such as "1, 2.5"; got {word!r}.')

    @property
    def speed_factors(self) -> tuple[float, ...]:
        """`speeds`, parsed."""
        return tuple(float(word) for word in items(self.speeds))

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
    method: str = setting("lora-c", "the adapter", choices=names.ADAPTERS)
    rank: int = setting(2, "the rank setting r", least=1)
    alpha: float = setting(4.0, "the scale's numerator: delta = alpha / r * B A; the paper holds it at 2 r", above=0)
    rank_mode: str = setting("auto", "what r means: R = r*K or R = r; auto as in the paper", choices=names.RANK_MODES)
    kernel_wise: bool = setting(False, "the paper's ablation: a pair of factors per kernel")
    train_first_conv: bool = setting(True, "the first convolution's weight is trained, and sent, as it is")
    train_classifier: bool = setting(True, "the classifier's weight is trained, and sent, as it is")
    ranks: str = setting("", "ranks dealt to cameras round robin, alpha / r as it is; empty: rank for all", listed=True)
    atoms: int = setting(9, "filter-atoms: atoms m a convolution; the paper's 6, 9, 12", least=1)
    atoms_m1: int = setting(0, "filter-atoms: overcomplete, each atom of so many; 0: not; the paper's 3 to 6", least=0)
    atoms_kc: int = setting(4, "filter-atoms: channels of 1x1 kernels regrouped by; 0: none; the paper's 2, 4", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in items(self.ranks):
            if not word.isdecimal() or not int(word):
                raise ConfigError(
                    f"adapter.ranks must be whole numbers from 1, with commas between; got {word!r} in {self.ranks!r}. "
                    'Write them like "2, 4, 8", or leave it empty.'
                )

    @property
    def rank_list(self) -> tuple[int, ...]:
        """`ranks`, parsed; where it is empty, the one rank."""
        return tuple(int(word) for word in items(self.ranks)) or (self.rank,)


@dataclass(frozen=True)
class LocalConfig(Section):
    """A camera's turn."""

    section: ClassVar[str] = "local"
    epochs: int = setting(5, "passes over the camera's images a turn", least=1)
    steps: int = setting(0, "optimizer steps a turn; 0: by epochs", least=0)
    batch_size: int = setting(15, "images a step", least=1)
    lr: float = setting(0.05, "learning rate of the first round", above=0)
    momentum: float = setting(0.9, "of SGD", least=0, below=1)
    weight_decay: float = setting(5e-4, "on matrices, none on vectors", least=0)
    clip_norm: float = setting(5.0, "largest norm of the gradient; 0: no clipping", least=0)
    prox_mu: float = setting(0.0, "FedProx's pull towards where the turn began; 0: none", least=0)
    schedule: str = setting("cosine", "the learning rate over the rounds", choices=names.SCHEDULES)
    augment: str = setting("none", "random crops, mirroring; see fed_lorac.training.batches", choices=names.AUGMENTS)


@dataclass(frozen=True)
class BatchNormConfig(Section):
    """What becomes of batch-norm statistics."""

    section: ClassVar[str] = "batch_norm"
    mode: str = setting(
        "local", "statistics stay with the camera, are fixed, or travel and are billed", choices=names.BATCH_NORMS
    )
    in_turn: str = setting(
        "moving",
        "statistics in a turn: of each batch, or fixed by a few images first",
        choices=names.TURN_STATISTICS,
    )
    window: int = setting(0, "a camera's latest images, its statistics come from these; 0: from all", least=0)


@dataclass(frozen=True)
class StrategyConfig(Section):
    """What the server does with the replies."""

    section: ClassVar[str] = "strategy"
    name: str = setting("merged", "how the server averages, if it does", choices=names.STRATEGIES)
    downlink: str = setting("svd", "how merged's average goes down", choices=names.DOWNLINKS)
    svd_rank: int = setting(0, "rank that svd sends; 0: the adapter's own", least=0)
    groups_by: str = setting("weather", "personal: cameras of one group share it", choices=names.GROUPINGS)
    groups: int = setting(3, "personal: groups that similarity looks for", least=1)
    group_share: float = setting(1.0, "personal: how much of its difference a group takes", least=0, most=1)
    aggregator: str = setting("mean", "what stands for the cameras' deltas", choices=names.AGGREGATORS)
    trim_fraction: float = setting(
        0.1, "trimmed: share of cameras cut off on each side of every entry", least=0, below=0.5
    )
    malicious: int = setting(1, "krum: bad cameras that it reckons with", least=0)
    clip_norm: float = setting(1.0, "clipped: the largest norm of a camera's delta", above=0)
    noise: float = setting(0.0, "clipped: deviation of the noise, over clip_norm / cameras", least=0)
    server: str = setting("average", "how the server steps by the mean delta", choices=names.SERVERS)
    server_lr: float = setting(1.0, "the server's learning rate", above=0)
    server_momentum: float = setting(0.9, "beta of momentum, beta_1 of adam and yogi", least=0, below=1)
    server_beta2: float = setting(0.99, "beta_2 of adam and yogi", least=0, below=1)
    server_tau: float = setting(1e-3, "adam's and yogi's floor under the root", above=0)
    quorum: float = setting(0.5, "share of the drawn cameras a round needs; at least one camera", least=0, most=1)


@dataclass(frozen=True)
class CodecConfig(Section):
    """How numbers travel."""

    section: ClassVar[str] = "codec"
    up: str = setting("fp32", "from camera to server", choices=names.CODECS)
    down: str = setting("fp32", "from server to camera", choices=names.CODECS)
    topk_share: float = setting(0.05, "topk: share of each tensor's values that is sent", least=0.001, most=1)
    error_feedback: bool = setting(False, "cameras add to a frame what the codec left out of the one before")
