"""Server optimizers: the mean delta of a round taken as it is, or as a gradient. Knows sums of deltas; not Flower or
frames.

The mean M_t plays the part of a pseudo-gradient (Reddi et al. 2021, arXiv 2003.00295, algorithm 2, with the sign of a
delta): D_t is what is folded into the base. Moments are sums that outlive a round: kind ("momentum", "second") ->
tensor name -> sum.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from fed_lorac.aggregation.delta_sum import DeltaSum, Sums
from fed_lorac.runtime.settings import check_settings, setting

__all__ = ["Adam", "Moments", "Momentum", "ServerOptimizer", "Sgd", "Yogi"]

Moments = Mapping[str, Sums]

_LR = "the server's learning rate: the mean delta is multiplied by it"
_MOMENTUM, _SECOND = "momentum", "second"


class ServerOptimizer(ABC):
    """One way to step by the mean delta. A subclass is a frozen dataclass whose fields are its settings."""

    source: ClassVar[str]
    """Where it is from: a paper with its arXiv id."""

    elementwise: ClassVar[bool] = False
    """Whether it acts on each entry of a dense delta, so that no factors are left."""

    def __post_init__(self) -> None:
        check_settings(self)

    @abstractmethod
    def step(self, mean: Sums, moments: Moments) -> tuple[Sums, Moments]:
        """(D, moments) from the round's mean and the moments so far; neither argument is changed."""


@dataclass(frozen=True)
class Sgd(ServerOptimizer):
    """D = lr M: FedAvg where lr is 1."""

    source = "FedAvg, arXiv 1602.05629"
    lr: float = setting(1.0, _LR, above=0)

    def step(self, mean: Sums, moments: Moments) -> tuple[Sums, Moments]:
        """No moments."""
        return {name: DeltaSum(total.shape).add(total, self.lr) for name, total in mean.items()}, {}


@dataclass(frozen=True)
class Momentum(ServerOptimizer):
    """v <- beta v + M, D = lr v (Hsu et al. 2019)."""

    source = "FedAvgM, arXiv 1909.06335"
    lr: float = setting(1.0, _LR, above=0)
    beta: float = setting(0.9, "share of the momentum that is kept from round to round", least=0, below=1)

    def step(self, mean: Sums, moments: Moments) -> tuple[Sums, Moments]:
        """Factors stay stacked while the stack is thin."""
        before, velocity, steps = moments.get(_MOMENTUM, {}), {}, {}
        for name, total in mean.items():
            velocity[name] = DeltaSum(total.shape).add(total)
            if name in before:
                velocity[name].add(before[name], self.beta)
            steps[name] = DeltaSum(total.shape).add(velocity[name], self.lr)
        return steps, {_MOMENTUM: velocity}


@dataclass(frozen=True)
class _Adaptive(ServerOptimizer):
    """m <- beta1 m + (1 - beta1) M, D = lr m / (sqrt(v) + tau); elementwise, so dense."""

    elementwise = True
    lr: float = setting(1.0, _LR, above=0)
    beta1: float = setting(0.9, "share of the first moment that is kept from round to round", least=0, below=1)
    beta2: float = setting(0.99, "share of the second moment that is kept from round to round", least=0, below=1)
    tau: float = setting(1e-3, "added to the root of the second moment: the larger, the less adaptive", above=0)

    @abstractmethod
    def second(self, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        """The second moment after a round whose mean has these squares."""

    def step(self, mean: Sums, moments: Moments) -> tuple[Sums, Moments]:
        """In float64."""
        after: dict[str, Sums] = {_MOMENTUM: {}, _SECOND: {}}
        steps = {}
        for name, total in mean.items():
            M = total.dense().double()
            m = self.beta1 * _dense(moments, _MOMENTUM, name, M) + (1 - self.beta1) * M
            v = self.second(_dense(moments, _SECOND, name, M), M.square())
            for kind, value in ((_MOMENTUM, m), (_SECOND, v)):
                after[kind][name] = DeltaSum(total.shape).add_dense(value, 1.0)
            steps[name] = DeltaSum(total.shape).add_dense(m / (v.sqrt() + self.tau), self.lr)
        return steps, after


@dataclass(frozen=True)
class Adam(_Adaptive):
    """v <- beta2 v + (1 - beta2) M^2."""

    source = "FedAdam, arXiv 2003.00295"

    def second(self, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        """As above."""
        return self.beta2 * v + (1 - self.beta2) * squared


@dataclass(frozen=True)
class Yogi(_Adaptive):
    """v <- v - (1 - beta2) M^2 sign(v - M^2)."""

    source = "FedYogi, arXiv 2003.00295"

    def second(self, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        """As above."""
        return v - (1 - self.beta2) * squared * torch.sign(v - squared)


def _dense(moments: Moments, kind: str, name: str, like: torch.Tensor) -> torch.Tensor:
    known = moments.get(kind, {})
    return known[name].dense64() if name in known else torch.zeros_like(like)
