"""entropy: predictions become surer and, where asked, stay spread over the classes. Knows logits.

TENT (Wang et al. 2021, arXiv 2006.10726) lowers the mean entropy of predictions. Alone it ends in one class for all.
SHOT (Liang et al. 2020, arXiv 2002.08546, equation 3) takes the entropy of the batch's mean prediction away from it:
together that is the negative mutual information of images and classes, so that to lower it is information maximisation.
"""

from dataclasses import dataclass

from fed_lorac.runtime.settings import setting
from fed_lorac.training.objectives.label_free import LabelFree, entropy, log_probabilities
from fed_lorac.training.objectives.objective import Batch, Losses

__all__ = ["Entropy"]


@dataclass(frozen=True)
class Entropy(LabelFree):
    """mean H(p) - diversity * H(mean p), over a camera's own batch."""

    source = "TENT, arXiv 2006.10726; information maximisation: SHOT, arXiv 2002.08546"
    smooth = True

    diversity: float = setting(1.0, "weight of the entropy of the batch's mean prediction; 0: TENT, 1: SHOT", least=0)

    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss; all its images take part."""
        log_p = log_probabilities(batch.logits)
        return self.guessed(entropy(log_p).mean(0) + self.spread(log_p), log_p.exp())
