"""pseudo-label: sure predictions are taken for labels. Knows logits and teachers.

Lee 2013 ("Pseudo-Label", ICML workshop) and FixMatch (Sohn et al. 2020, arXiv 2001.07685, equation 4): where the
prediction of an image is sure, the network learns to give that class to another view of it. FixMatch's view is a strong
one; try it before you use it: an image with a hole moves the batch's statistics. Who predicts is the network itself, as
in FixMatch, a mean teacher (Tarvainen and Valpola 2017, arXiv 1703.01780), or the network as it was when the local
update began, which is the global model.
"""

from dataclasses import dataclass

import torch

from fed_lorac.runtime.settings import setting
from fed_lorac.training.batches import AUGMENTS
from fed_lorac.training.objectives.label_free import LabelFree, log_probabilities
from fed_lorac.training.objectives.objective import Batch, Learners, Losses

__all__ = ["PseudoLabel"]


@dataclass(frozen=True)
class PseudoLabel(LabelFree):
    """Over the batch, the mean of -ln p_k(view) where max q(image) = q_k >= threshold, and 0 elsewhere."""

    source = "FixMatch, arXiv 2001.07685"

    threshold: float = setting(0.95, "probability from which a prediction is taken for a label", above=0, below=1)
    decay: float = setting(
        0.0,
        "how much of itself the teacher, who labels, keeps at a step; 0: it is the network, 1: the global model",
        least=0,
        most=1,
    )
    view: str = setting(
        "reflect_flip", "the view that the network learns from; none: the image that was predicted", choices=AUGMENTS
    )

    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss; in use are the images whose prediction is sure."""
        q = batch.predictions(batch.images, teacher=self.decay > 0)
        sure, targets = q.max(-1)
        used = sure >= self.threshold
        log_p = log_probabilities(batch.logits if self.view == "none" else batch.logits_of(batch.view(self.view)))
        each = -log_p.gather(-1, targets[..., None])[..., 0]
        predicted = batch.predictions(batch.images) if self.decay else q
        return self.guessed(torch.where(used, each, 0).mean(0) + self.spread(log_p), predicted, targets, used)

    def begin(self, learners: Learners) -> None:
        """The teacher is the network as it is."""
        learners.teachers.begin(teacher=self.decay > 0)

    def after_step(self, learners: Learners) -> None:
        """The teacher moves."""
        if 0 < self.decay < 1:
            learners.teachers.move(self.decay)
