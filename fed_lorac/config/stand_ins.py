"""The options of methods whose classes do not declare them yet. Goes when they do."""

# ruff: noqa: D101
from dataclasses import dataclass

from fed_lorac.config import names
from fed_lorac.runtime.settings import setting


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass(frozen=True)
class Merged:
    downlink: str = setting("svd", "form of the update that goes down", choices=names.DOWNLINKS)
    svd_rank: int = setting(0, "rank of the update that svd sends; 0: the adapter's own", least=0)


@dataclass(frozen=True)
class Clustered(Merged):
    by: str = setting("weather", "what puts cameras in one cluster", choices=names.GROUPINGS)
    clusters: int = setting(3, "number of clusters that similarity looks for", least=1)
    share: float = setting(1.0, "how much of its own difference a cluster keeps", least=0, most=1)


@dataclass(frozen=True)
class Trimmed:
    trim_fraction: float = setting(0.1, "share of cameras cut off at each end of every entry", least=0, below=0.5)


@dataclass(frozen=True)
class Krum:
    malicious: int = setting(1, "number of malicious cameras that krum assumes", least=0)


@dataclass(frozen=True)
class Clipped:
    clip_norm: float = setting(1.0, "largest norm of a camera's delta", above=0)
    noise: float = setting(0.0, "standard deviation of the noise, in units of clip_norm / cameras", least=0)


@dataclass(frozen=True)
class Sgd:
    lr: float = setting(1.0, "the server's learning rate", above=0)


@dataclass(frozen=True)
class Momentum(Sgd):
    beta: float = setting(0.9, "momentum", least=0, below=1)


@dataclass(frozen=True)
class Adam(Sgd):
    beta1: float = setting(0.9, "decay of the mean delta", least=0, below=1)
    beta2: float = setting(0.99, "decay of the mean squared delta", least=0, below=1)
    tau: float = setting(1e-3, "smallest denominator of a step", above=0)


STRATEGIES = {
    "merged": Merged,
    "fedavg": Nothing,
    "factor-fedavg": Nothing,
    "flora": Nothing,
    "flexlora": Nothing,
    "rotating-basis": Nothing,
    "clustered": Clustered,
    "local-only": Nothing,
    "zero-byte": Nothing,
}
AGGREGATORS = {"mean": Nothing, "clipped": Clipped, "median": Nothing, "trimmed": Trimmed, "krum": Krum}
SERVER_OPTIMIZERS = {"sgd": Sgd, "momentum": Momentum, "adam": Adam, "yogi": Adam}
