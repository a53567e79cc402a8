"""The options of methods whose classes do not declare them yet. Goes when they do."""

# ruff: noqa: D101
from dataclasses import dataclass

from fed_lorac.config import names
from fed_lorac.runtime.settings import setting


@dataclass(frozen=True)
class Ends:
    train_first_conv: bool = setting(True, "the first convolution's weight is trained, and sent, as it is")
    train_classifier: bool = setting(True, "the classifier's weight is trained, and sent, as it is")


@dataclass(frozen=True)
class Ranked(Ends):
    rank: int = setting(2, "rank r", least=1)


@dataclass(frozen=True)
class Scaled(Ranked):
    alpha: float = setting(4.0, "numerator of the scale alpha / rank", above=0)


@dataclass(frozen=True)
class Moded(Scaled):
    rank_mode: str = setting(
        "auto", "inner rank of the factors: rank * kernel size (r*k), or rank (r)", choices=names.RANK_MODES
    )


@dataclass(frozen=True)
class KernelWise(Moded):
    kernel_wise: bool = setting(False, "one pair of factors for each kernel: the paper's ablation")


@dataclass(frozen=True)
class FilterAtoms(Ends):
    atoms: int = setting(9, "filter atoms m of a convolution; the paper uses 6, 9 and 12", least=1)
    m1: int = setting(0, "overcomplete: each atom is made of so many; 0: not; the paper uses 3 to 6", least=0)
    kc: int = setting(4, "channels by which 1x1 kernels are regrouped; 0: none; the paper uses 2 and 4", least=0)


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


ADAPTERS = {
    "lora-c": KernelWise,
    "lorae": Ranked,
    "conv-lora": Scaled,
    "ffa-lora-c": KernelWise,
    "aad": Moded,
    "filter-atoms": FilterAtoms,
    "bn-affine": Ends,
    "linear-probe": Nothing,
    "full": Nothing,
}
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
