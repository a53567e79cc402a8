"""What the server makes of a round's mean delta: takes it as it is, or as a gradient. Knows sums of deltas; not Flower
or frames.

The mean M_t plays the part of a pseudo-gradient (Reddi et al. 2021, arXiv 2003.00295, algorithm 2, with the sign of a
change): D_t is what is folded into the base. Moments are sums that outlive a round, kept by "momentum/<tensor>" and
"second/<tensor>".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fed_lorac.aggregation.delta_sum import DeltaSum, Sums
from fed_lorac.errors import ConfigError

__all__ = ["OPTIMIZERS", "ServerOptimizer"]


@dataclass(frozen=True)
class ServerOptimizer:
    """One way to step by the mean; `lr` is the server's learning rate, `momentum` beta_1, `beta2` and `tau` adam's."""

    name: str = "sgd"
    lr: float = 1.0
    momentum: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS or not self.lr > 0 or not 0 <= self.momentum < 1 or not 0 <= self.beta2 < 1:
            raise ConfigError(
                f"A server steps by one of {', '.join(OPTIMIZERS)}, a learning rate above 0, betas from 0 to below 1; "
                f"got {self.name!r}, {self.lr}, {self.momentum} and {self.beta2}."
            )

    @property
    def elementwise(self) -> bool:
        """Whether it acts on each entry of a dense delta, so that no factors are left."""
        return self.name in ("adam", "yogi")

    def step(self, mean: Mapping[str, DeltaSum], kept: Mapping[str, DeltaSum]) -> tuple[Sums, Sums]:
        """(D, moments) from the round's mean and the moments so far; what comes is left as it is."""
        return OPTIMIZERS[self.name](self, mean, kept)


def _average(how: ServerOptimizer, mean: Mapping[str, DeltaSum], kept: Mapping[str, DeltaSum]) -> tuple[Sums, Sums]:
    """D = lr M: FedAvg (McMahan et al. 2017, arXiv 1602.05629) where lr is 1."""
    return {name: DeltaSum(total.shape).add(total, how.lr) for name, total in mean.items()}, {}


def _momentum(how: ServerOptimizer, mean: Mapping[str, DeltaSum], kept: Mapping[str, DeltaSum]) -> tuple[Sums, Sums]:
    """v <- beta v + M, D = lr v: FedAvgM (Hsu et al. 2019, arXiv 1909.06335)."""
    moments, steps = {}, {}
    for name, total in mean.items():
        moved = DeltaSum(total.shape).add(total)
        if (before := kept.get(f"momentum/{name}")) is not None:
            moved.add(before, how.momentum)
        moments[f"momentum/{name}"] = moved
        steps[name] = DeltaSum(total.shape).add(moved, how.lr)
    return steps, moments


def _adaptive(how: ServerOptimizer, mean: Mapping[str, DeltaSum], kept: Mapping[str, DeltaSum]) -> tuple[Sums, Sums]:
    """m <- beta_1 m + (1 - beta_1) M, D = lr m / (sqrt(v) + tau), v by adam or yogi; elementwise, so dense."""
    moments, steps = {}, {}
    for name, total in mean.items():
        M = total.dense().double()
        m = how.momentum * _dense(kept, f"momentum/{name}", M) + (1 - how.momentum) * M
        v = _second(how, _dense(kept, f"second/{name}", M), M.square())
        for kind, value in (("momentum", m), ("second", v)):
            moments[f"{kind}/{name}"] = DeltaSum(total.shape).add_dense(value, 1.0)
        steps[name] = DeltaSum(total.shape).add_dense(m / (v.sqrt() + how.tau), how.lr)
    return steps, moments


def _second(how: ServerOptimizer, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
    """Adam: v <- beta_2 v + (1 - beta_2) M^2. Yogi: v <- v - (1 - beta_2) M^2 sign(v - M^2)."""
    if how.name == "adam":
        return how.beta2 * v + (1 - how.beta2) * squared
    return v - (1 - how.beta2) * squared * torch.sign(v - squared)


def _dense(kept: Mapping[str, DeltaSum], key: str, like: torch.Tensor) -> torch.Tensor:
    return kept[key].dense64() if key in kept else torch.zeros_like(like)


Step = Callable[[ServerOptimizer, Mapping[str, DeltaSum], Mapping[str, DeltaSum]], tuple[Sums, Sums]]

OPTIMIZERS: dict[str, Step] = {"sgd": _average, "momentum": _momentum, "adam": _adaptive, "yogi": _adaptive}
"""strategy.server_optimizer -> its step."""
