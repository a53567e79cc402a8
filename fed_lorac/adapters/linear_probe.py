"""linear-probe: the classifier alone is trained. Knows networks; not cameras.

Alain and Bengio 2016, arXiv 1610.01644.
"""

from dataclasses import dataclass

from torch import nn

from fed_lorac.adapters.dense import DenseAdapter
from fed_lorac.adapters.targets import classifier_of

__all__ = ["LinearProbe"]


@dataclass(frozen=True)
class LinearProbe(DenseAdapter):
    """The classifier's weight and bias."""

    formula = "the classifier's weight and bias"
    source = "Linear classifier probes, arXiv 1610.01644"
    trains_classifier = True

    def trained(self, model: nn.Module) -> list[str]:
        """FactorError where a network has no classifier (`targets.classifier_of`)."""
        name = classifier_of(model)
        return [f"{name}.{own}" for own, _ in model.get_submodule(name).named_parameters(recurse=False)]
