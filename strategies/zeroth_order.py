"""Zeroth order: cameras train by forward passes alone, and send one number for each of a few directions that both ends
draw from a seed. DeComFL (Li et al. 2024, arXiv 2405.15861, algorithm 1), FedKSeed (Qin et al. 2023, arXiv 2312.06353).

Of any linear adapter. In a round a camera moves along that round's directions z_1 ... z_K, a few at each step, by
differences of two losses (`training.objectives.forward_passes`), and sends how far it came along each, c. As all
cameras have the same directions, theta + sum_j mean(c)_j z_j is the mean of what they did: the mean c goes down, both
ends replay it, and a camera that missed rounds replays theirs. A round's number names its directions, so that no seed
is sent.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.along import Along
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting

from .rotating_basis import RotatingBasis

if TYPE_CHECKING:
    from fed_lorac.training.objectives.objective import Objective

__all__ = ["ZerothOrder"]


@dataclass(frozen=True)
class ZerothOrder(RotatingBasis):
    """The mean of how far cameras came along the round's directions, which are the basis that is drawn anew."""

    source = "DeComFL, arXiv 2405.15861; FedKSeed, arXiv 2312.06353"
    found_lr = 3.0
    forward_only = True

    directions: int = setting(16, "directions K of a round: a camera sends a number for each", least=1)
    per_step: int = setting(4, "directions that a step tries, in turn, by two forward passes each", least=1)
    smoothing: float = setting(0.01, "how far a step looks along each, to and fro", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_step > self.directions:
            raise ConfigError(
                f"A step tries directions of its round; came per_step = {self.per_step} of directions = "
                f"{self.directions}. Lower the first or raise the second."
            )

    def adapted(self, adapter: Adapter) -> Adapter:
        """The adapter along the directions; one that is along others, along these."""
        return Along(adapter.inner if isinstance(adapter, Along) else adapter, self.directions)

    def objective(self, objective: "Objective") -> "Objective":
        """The objective, by forward passes alone."""
        from fed_lorac.training.objectives.forward_passes import ForwardPasses  # noqa: PLC0415  (cameras alone train)

        return ForwardPasses(objective, self.per_step, self.smoothing)

    def refuses(self, adapter: Adapter) -> str | None:
        """States that the delta is not linear in, or that are cut, and networks that take gradients to adapt."""
        if adapter.adapts_to_batch:
            return (
                "Cameras train by forward passes alone, and a network that adapts to each batch takes gradients to do "
                "so. Use another linear adapter (NormAffine, LoraXs), or FedAvg."
            )
        inner = adapter.inner if isinstance(adapter, Along) else adapter
        if inner.bounded:
            return (
                "Cameras send how far they came along drawn directions, and what is cut to probabilities does not stay "
                f"on them; {type(inner).__name__}'s is. Use another linear adapter (NormAffine, LoraXs), or FedAvg."
            )
        if adapter.linear:
            return None
        return (
            "Cameras send how far they came along drawn directions, and the mean of that says the mean of their deltas "
            f"where those are linear in what is trained; {type(inner).__name__}'s is not. Use a linear adapter, "
            "such as norm-affine (NormAffine), lora-xs (LoraXs) or ffa-lora-c (FfaLoraC)."
        )
