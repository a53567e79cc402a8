"""What a camera trains, by name. Knows how each method is attached and read; not cameras, rounds or bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fed_lorac.adapters import full, lora_c
from fed_lorac.config import AdapterConfig

__all__ = ["ADAPTERS", "Adapter", "adapter_of"]


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
        )

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Factors, and the changes of the first convolution and the classifier."""
        return lora_c.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Factors and changes back into a network attached alike."""
        lora_c.load_state(model, state)


@dataclass(frozen=True)
class Full:
    """Full fine-tuning, see `fed_lorac.adapters.full`."""

    scale: float = 1.0

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Every parameter is trained."""
        full.attach(model)

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Every parameter's change."""
        return full.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Every parameter's change, added to where it began."""
        full.load_state(model, state)


ADAPTERS: dict[str, Callable[[AdapterConfig], Adapter]] = {
    "lora-c": lambda a: LoraC(a.rank, a.alpha, a.rank_mode, a.kernel_wise),
    "full": lambda a: Full(),
}
"""adapter.method -> its maker, given the config's section."""


def adapter_of(config: AdapterConfig) -> Adapter:
    """The adapter that the config names."""
    return ADAPTERS[config.method](config)
