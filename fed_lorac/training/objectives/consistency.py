"""consistency: the network follows a mean teacher's mean over several views. Knows logits and teachers.

CoTTA (Wang et al. 2022, arXiv 2203.13591): the teacher's predictions are averaged over augmentations (equation 4), the
network's cross-entropy with them is lowered (equation 1), the teacher follows the network (equation 2), and a drawn
share of the network's numbers is restored after each step (equations 7 and 8): here to where the local update began,
since the global model is what a fleet adapts. CoTTA averages views only where the source is unsure; this always does,
and sharpens the mean (MixMatch, Berthelot et al. 2019, arXiv 1905.02249, equation 7), so that rates far above CoTTA's
do not end in saying nothing.
"""

from dataclasses import dataclass

import torch

from fed_lorac.runtime.settings import setting
from fed_lorac.training.batches import AUGMENTS
from fed_lorac.training.objectives.label_free import LabelFree, cross_entropy, log_probabilities
from fed_lorac.training.objectives.objective import Batch, Learners, Losses

__all__ = ["Consistency"]


@dataclass(frozen=True)
class Consistency(LabelFree):
    """mean H(q, p): q the teacher's probabilities, averaged over views and sharpened: q_c ~ mean_c^(1/temperature).

    Without sharpening a mean over views is less sure than each, and the network that follows it says less and less.
    """

    source = "CoTTA, arXiv 2203.13591"

    views: int = setting(4, "views that the teacher's prediction is averaged over; 0: the image itself", least=0)
    view: str = setting("reflect_flip", "how a view is drawn", choices=AUGMENTS)
    temperature: float = setting(0.5, "the mean is sharpened by this; 1: not at all, as CoTTA", above=0, most=1)
    decay: float = setting(0.99, "how much of itself the teacher keeps at a step; CoTTA: 0.999", least=0, below=1)
    restore: float = setting(0.0, "share of numbers restored after a step, at random; CoTTA: 0.01", least=0, below=1)

    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss; all its images take part."""
        views = [batch.view(self.view) for _ in range(self.views)] or [batch.images]
        mean = torch.stack([batch.predictions(view, teacher=True) for view in views]).mean(0)
        q = mean.clamp_min(1e-12).log().div(self.temperature).softmax(-1)
        log_p = log_probabilities(batch.logits)
        return self.guessed(cross_entropy(q, log_p).mean(0) + self.spread(log_p), log_p.exp(), q.argmax(-1))

    def begin(self, learners: Learners) -> None:
        """The teacher is the network as it is."""
        learners.teachers.begin(teacher=True, start=self.restore > 0)

    def after_step(self, learners: Learners) -> None:
        """The teacher moves, and some of the network goes back."""
        learners.teachers.move(self.decay)
        learners.teachers.restore(self.restore)
