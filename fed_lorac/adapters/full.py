"""full: every parameter is trained and sent, as federated averaging has it. Knows networks; not cameras.

McMahan et al. 2017, arXiv 1602.05629: what every other method's bytes are measured against.
"""

from dataclasses import dataclass

from torch import nn

from fed_lorac.adapters.dense import DenseAdapter

__all__ = ["FullFineTuning"]


@dataclass(frozen=True)
class FullFineTuning(DenseAdapter):
    """Every parameter."""

    formula = "every parameter"
    source = "FedAvg of every parameter, arXiv 1602.05629"
    found_lr = 0.1
    trains_everything = True
    trains_classifier = True

    def trained(self, model: nn.Module) -> list[str]:
        """All names, in the network's order."""
        return [name for name, _ in model.named_parameters()]
