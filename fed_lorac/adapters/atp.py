"""atp: a fleet learns with labels by which rates a network is to adapt to each batch without any. Knows networks; not
cameras, nor how a network adapts (`adapting`).

Adaptive test-time personalization, ATP (Bao et al. 2023, arXiv 2310.18816). The rates alone are trained, by the loss of
the network that has adapted to the very batch, without its labels; the network itself never changes.
"""

from dataclasses import dataclass

from torch import nn

from fed_lorac.adapters.adapting import RATES, AdaptsToBatch, give_rates
from fed_lorac.adapters.dense import DenseAdapter
from fed_lorac.adapters.plain import check_plain
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting

__all__ = ["Atp"]


@dataclass(frozen=True)
class Atp(DenseAdapter):
    """Adaptation rates. State: "adaptation_rates" (d,), one for each name of `adapting.rated`, in that order.

    A network is given them by `prepare`, and keeps them: it adapts by them attached or not.
    """

    formula = "tensors: parameters, and running means and variances"
    source = "Adaptive Test-Time Personalization, arXiv 2310.18816"
    found_lr = 0.1
    adapts_to_batch = True

    batch_images: int = setting(20, "images that the network adapts to together, at most", least=1)
    online: bool = setting(False, "measured on several batches, each is adapted to by the mean direction of all so far")

    def prepare(self, model: nn.Module) -> None:
        """Give it rates of zero; those that it has stay. FactorError for a network that is not plain, has something of
        their name, or adapts in another way."""
        if isinstance(model, AdaptsToBatch):
            if (model.batch_images, model.online) != (self.batch_images, self.online):
                raise FactorError(
                    f"A network adapts in one way; this one has batch_images = {model.batch_images} and online = "
                    f"{model.online}, and was to have {self.batch_images} and {self.online}. Take a fresh one."
                )
            return
        check_plain(model)
        if hasattr(model, RATES):
            raise FactorError(f"A network is given {RATES}; this one has something of that name. Rename it.")
        give_rates(model, batch_images=self.batch_images, online=self.online)

    def trained(self, model: nn.Module) -> list[str]:
        """The rates; FactorError where the network has none."""
        if not isinstance(model, AdaptsToBatch):
            raise FactorError(
                f"atp trains the rates of a network that adapts to each batch; this {type(model).__name__} has none. "
                "Give it some first: Atp().prepare(network)."
            )
        return [RATES]
