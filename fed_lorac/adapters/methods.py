"""What a camera trains, by name. Knows how each method is attached and read; not cameras, rounds or bytes."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from fed_lorac.adapters import dense, lora_c
from fed_lorac.config import AdapterConfig

__all__ = ["ADAPTERS", "SOURCES", "Adapter", "adapter_of"]


class Adapter(Protocol):
    """One way to adapt a network: what of it is trained, and how that is read as a state."""

    @property
    def scale(self) -> float:
        """What a state's factor products are multiplied by."""

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Make a plain network trainable this way, in place; its outputs do not change yet."""

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """The state since `attach`: factors and dense changes, float32, on the CPU."""

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put a state that was read before into a network attached alike."""


@dataclass(frozen=True)
class LoraC:
    """LoRA-C, see `fed_lorac.adapters.lora_c`."""

    rank: int
    alpha: float
    rank_mode: str = "auto"
    kernel_wise: bool = False
    train_first_conv: bool = True
    train_classifier: bool = True

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Factors on every convolution but the first, B zero, A drawn from `generator`."""
        lora_c.attach(
            model,
            rank=self.rank,
            alpha=self.alpha,
            rank_mode=self.rank_mode,
            kernel_wise=self.kernel_wise,
            generator=generator,
            train_first_conv=self.train_first_conv,
            train_classifier=self.train_classifier,
        )

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Factors, and the changes of the first convolution and the classifier."""
        return lora_c.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Factors and changes back into a network attached alike."""
        lora_c.load_state(model, state)


@dataclass(frozen=True)
class Dense:
    """Parameters trained as they are, see `fed_lorac.adapters.dense`; `select` names those of a network."""

    select: Callable[[nn.Module], Collection[str]]
    scale: float = 1.0

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """The selected parameters are trained, and no other."""
        dense.attach(model, self.select(model))

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Every trained parameter's change."""
        return dense.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Every trained parameter's change, added to where it began."""
        dense.load_state(model, state)


def _factors(a: AdapterConfig, alpha: float, rank_mode: str) -> LoraC:
    return LoraC(a.rank, alpha, rank_mode, a.kernel_wise, a.train_first_conv, a.train_classifier)


def _bn_affine(a: AdapterConfig) -> Dense:
    return Dense(partial(dense.norms_and_ends, first_conv=a.train_first_conv, classifier=a.train_classifier))


ADAPTERS: dict[str, Callable[[AdapterConfig], Adapter]] = {
    "lora-c": lambda a: _factors(a, a.alpha, a.rank_mode),
    "lorae": lambda a: _factors(a, float(a.rank), "filter"),  # no scale: alpha = r
    "conv-lora": lambda a: _factors(a, a.alpha, "filter"),
    "bn-affine": _bn_affine,
    "linear-probe": lambda a: Dense(dense.probe),
    "full": lambda a: Dense(dense.everything),
}
"""adapter.method -> its maker, given the config's section."""

SOURCES = {
    "lora-c": "LoRA-C, arXiv 2410.16954",
    "lorae": "LoRAE, Low-rank adaptation for edge AI, doi 10.1038/s41598-025-16794-9",
    "conv-lora": "LoRA, arXiv 2106.09685, on convolutions as PEFT and FLoCoRA (arXiv 2406.14082) have it",
    "bn-affine": "Training BatchNorm and only BatchNorm, arXiv 2003.00152",
    "linear-probe": "Linear classifier probes, arXiv 1610.01644",
    "full": "FedAvg of every parameter, arXiv 1602.05629",
}
"""adapter.method -> where it is from."""


def adapter_of(config: AdapterConfig) -> Adapter:
    """The adapter that the config names."""
    return ADAPTERS[config.method](config)
