"""entropy: predictions become surer and, where asked, stay spread over the classes. Knows logits.

TENT (Wang et al. 2021, arXiv 2006.10726) lowers the mean entropy of predictions. Alone it ends in one class for all.
SHOT (Liang et al. 2020, arXiv 2002.08546, equation 3) takes the entropy of the batch's mean prediction away from it:
together that is the negative mutual information of images and classes, so that to lower it is information maximisation.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fed_lorac.runtime.settings import setting
from fed_lorac.training.objectives.label_free import LabelFree, entropy, log_probabilities
from fed_lorac.training.objectives.objective import Batch, Losses

__all__ = ["Entropy", "marginal_entropy"]


def marginal_entropy(log_p: Float[Tensor, "b n classes"]) -> Float[Tensor, " n"]:
    """H(mean over a camera's own batch of p): ln C where its classes are even, 0 where there is one alone."""
    return entropy(log_p.exp().mean(0).clamp_min(1e-12).log())


@dataclass(frozen=True)
class Entropy(LabelFree):
    """mean H(p) - diversity * H(mean p), over a camera's own batch."""

    source = "TENT, arXiv 2006.10726; information maximisation: SHOT, arXiv 2002.08546"

    diversity: float = setting(1.0, "weight of the entropy of the batch's mean prediction; 0: TENT, 1: SHOT", least=0)

    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss; all its images take part."""
        log_p = log_probabilities(batch.logits)
        each = entropy(log_p).mean(0)
        if self.diversity:
            each = each - self.diversity * marginal_entropy(log_p)
        return self.guessed(each, log_p.exp())

    def refuses(self, batch_size: int) -> str | None:
        """One image alone: its prediction is the batch's mean, and nothing is left."""
        if batch_size > 1 or not self.diversity:
            return None
        return (
            "The entropy of a batch's mean prediction needs several images: of one alone it is that of its prediction, "
            "and nothing is left to lower. Set local.batch_size to 2 or more, better 50, or diversity = 0."
        )
