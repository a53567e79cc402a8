"""lora-c: LoRA-C, thin factors on the matrix view of every convolution but the first. Knows networks; no cameras,
rounds or frames.

LoRA-C, arXiv 2410.16954, section III: a convolution's weight (out, in, K, K) is seen as out*K rows and in*K columns,
and delta W = (alpha / r) * reshape(B @ A), with A (R, in*K) and B (out*K, R); R is r*K or r. The first convolution's
and the classifier's weights are trained as they are, all else is frozen; batch norm's running statistics move as ever.

    adapter = LoraC(rank=4, alpha=8.0)
    adapter.attach(model, torch.Generator().manual_seed(0))  # in place; its outputs do not change yet
    ...  # train what requires a gradient
    state = adapter.read(model)  # what a camera sends
    plain = adapter.merge(model)  # a copy: the plain network's modules and operation count
    adapter.detach(model)  # without a trace
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.algebra.factors import delta, init_factors
from fed_lorac.adapters.low_rank import LowRankAdapter
from fed_lorac.adapters.targets import auto_rank_mode
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.runtime.settings import setting

__all__ = ["LoraC", "delta"]


@dataclass(frozen=True)
class LoraC(LowRankAdapter):
    """A convolution's update as a product B A of two matrices of low rank.

    `rank_mode` "auto" is `targets.auto_rank_mode` of the network. `kernel_wise` is the paper's ablation: a pair a
    kernel, A (out, in, r, K) and B (out, in, K, r).
    """

    source = "LoRA-C, arXiv 2410.16954"
    found_lr = 0.03

    alpha: float = setting(4.0, "the scale's numerator: delta = alpha / r * B A; the paper holds it at 2 r", above=0)
    rank_mode: str = setting(
        "auto",
        "inner rank of the factors: rank times kernel size, or rank; auto: as in the paper",
        choices=("auto", "r*k", "r"),
    )
    kernel_wise: bool = setting(False, "one pair of factors for each kernel, the paper's ablation")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_wise and self.rank_mode == "r*k":
            raise ConfigError(
                'Kernel-wise factors are (r, K) and (K, r), so their rank is r itself; got rank_mode = "r*k" with '
                'kernel_wise = true. Set rank_mode = "r" or "auto".'
            )
        if self.kernel_wise and self.route in ("two-step", "thin"):
            raise FactorError(f"Kernel-wise factors take the dense route; came {self.route!r}. Leave it at auto.")

    @property
    def formula(self) -> str:
        """A and B."""
        return "Σ 2 r K in out + ends" if self.kernel_wise else "Σ R (in K + out K) + ends"

    @property
    def branch_scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank

    def fit_to(self, base: nn.Module) -> Self:
        """With the rank mode that "auto" means for this network."""
        unsettled = self.rank_mode == "auto" and not self.kernel_wise
        own = replace(self, rank_mode=auto_rank_mode(base)) if unsettled else self
        return super(LoraC, own).fit_to(base)

    def draw(self, weight: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Fresh factors (A, B) for a convolution's weight, B zero."""
        mode = "r" if self.kernel_wise else self.rank_mode
        return init_factors(weight.shape, self.rank, mode, generator, kernel_wise=self.kernel_wise)

    def with_frozen_basis(self) -> Adapter:
        """LoRA-C whose A stays as it is drawn."""
        from fed_lorac.adapters.ffa_lora_c import FfaLoraC  # noqa: PLC0415 - it is made of this one

        ends = ("train_first_conv", "train_classifier", "end_rank")
        own = ("rank", "alpha", "rank_mode", "kernel_wise", "layers", *ends)
        return FfaLoraC(**{name: getattr(self, name) for name in own})
