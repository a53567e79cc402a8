"""mixed: labels where a camera has some, and another objective on all of its images. Knows logits and labels.

Semi-supervised learning as FixMatch has it (arXiv 2001.07685, section 2.2): cross-entropy on the images that are
labelled, and a weighted loss on all, labelled or not, which sees no label. With `local.unlabelled = "entropy"` it is
entropy minimisation (Grandvalet and Bengio 2005).
"""

from dataclasses import dataclass, field

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from fed_lorac.runtime.settings import setting
from fed_lorac.training.objectives.entropy import Entropy
from fed_lorac.training.objectives.objective import NO_LABEL, Batch, Learners, Losses, Objective

__all__ = ["Mixed"]


@dataclass(frozen=True)
class Mixed(Objective):
    """mean over labelled images of -ln p_y, and weight times the loss of `rest` on all images.

    `rest` is what `local.unlabelled` names.
    """

    source = "FixMatch, arXiv 2001.07685, section 2.2"
    uses_labels = True

    weight: float = setting(1.0, "weight of the loss of local.unlabelled; 0: cameras learn from labels alone", least=0)
    labelled_share: float = setting(0.1, "share of labels that there are", above=0, most=1)
    whose: str = setting(
        "images",
        "who has them: a share of each camera's images, or all images of a share of the cameras",
        choices=("images", "cameras"),
    )
    rest: Objective = field(default_factory=Entropy)

    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss; what the other objective guesses is shown."""
        other = self.rest.checked(batch)
        return Losses(_labelled(batch) + self.weight * other.each, other.guesses)

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Where the other objective is."""
        return self.rest.smooth

    @property
    def radius(self) -> float:
        """The other objective's."""
        return self.rest.radius

    def losses_uphill(self, batch: Batch, first: Losses) -> Float[Tensor, " n"]:
        """Both losses uphill."""
        return _labelled(batch) + self.weight * self.rest.checked_uphill(batch, first)

    def begin(self, learners: Learners) -> None:
        """As the other objective does."""
        self.rest.begin(learners)

    def after_step(self, learners: Learners) -> None:
        """As the other objective does."""
        self.rest.after_step(learners)

    def refuses(self, batch_size: int) -> str | None:
        """As the other objective does."""
        return self.rest.refuses(batch_size)

    def collapsed(self, entropy: float, shares: Float[Tensor, " classes"]) -> bool:
        """As the other objective says, where it has a say."""
        return self.weight > 0 and self.rest.collapsed(entropy, shares)


def _labelled(batch: Batch) -> Float[Tensor, " n"]:
    """Each camera's mean cross-entropy over its images with labels; 0 where the batch has none."""
    labels, logits = batch.labels, batch.logits
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=NO_LABEL)
    return each.view(labels.shape).sum(0) / (labels != NO_LABEL).sum(0).clamp_min(1)
