"""labels: cross-entropy with the labels that every image has. Knows logits and labels."""

from dataclasses import dataclass

import torch.nn.functional as F

from fed_lorac.training.objectives.batch import Batch
from fed_lorac.training.objectives.objective import Losses, Objective

__all__ = ["Labels"]


@dataclass(frozen=True)
class Labels(Objective):
    """The mean of -ln p_y over the batch."""

    source = "cross-entropy with labels"
    uses_labels = True

    def losses(self, batch: Batch) -> Losses:
        """Each camera's mean cross-entropy."""
        logits, labels = batch.logits, batch.labels
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return Losses(each.view(labels.shape).mean(0))
