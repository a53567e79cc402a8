"""The ends of a network, the first convolution and the classifier: trained as they are, or left. Knows settings and
names; not what is adapted between them."""

from dataclasses import dataclass

from torch import nn

from fed_lorac.adapters.targets import ends_of
from fed_lorac.runtime.settings import setting

__all__ = ["Ends"]


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What an adapter that may train the ends says of them."""

    train_first_conv: bool = setting(True, "train, and send, the first convolution's weight as it is")
    train_classifier: bool = setting(True, "train, and send, the classifier's weight as it is")

    def ends(self, model: nn.Module) -> list[str]:
        """Names of the ends' weights that are trained; FactorError where a network has none."""
        return ends_of(model, first_conv=self.train_first_conv, classifier=self.train_classifier)
