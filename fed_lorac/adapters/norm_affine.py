"""norm-affine: the norm layers' weights and biases are trained, and nothing between them. Knows networks; not cameras.

Layer, group, instance and RMS norms count as batch norm does, for which it is also named bn-affine.
Frankle, Schwab and Morcos 2021, arXiv 2003.00152. Norm layers are found by type: by name one would miss `downsample.1`.
"""

from dataclasses import dataclass
from typing import Self

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from fed_lorac.adapters.dense import DenseAdapter
from fed_lorac.adapters.ends import Ends
from fed_lorac.errors import FactorError

__all__ = ["NormAffine"]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class NormAffine(Ends, DenseAdapter):
    """Every norm layer's weight and bias and, where asked, the first convolution's and the classifier's weight.

    The latter two as they are, or by a change of low rank.
    """

    formula = "weights and biases of norm layers + ends"
    source = "Training BatchNorm and only BatchNorm, arXiv 2003.00152"
    found_lr = 0.03

    @property
    def suggested_lr(self) -> float:
        """As `Adapter`'s; norms alone take ten times as much."""
        return self.found_lr if self.train_first_conv or self.train_classifier else 10 * self.found_lr

    @property
    def state_is_delta(self) -> bool:  # type: ignore[override]
        """Unless an end's frozen factor is to be put back."""
        return not self.end_rank

    def with_frozen_basis(self) -> Self | None:
        """It is one, where it draws something."""
        return self if self.end_rank else None

    def trained(self, model: nn.Module) -> list[str]:
        """FactorError where a network has no norm layer with a weight."""
        norms = {id(p) for m in model.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
        found = [name for name, p in model.named_parameters() if id(p) in norms]
        if not found:
            raise FactorError(
                "norm-affine trains norm layers' weights and biases; this network has none. Choose another."
            )
        return found + self.ends(model)
