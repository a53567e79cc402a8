"""What objectives without labels share: they are watched for collapse. Knows logits and guesses."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting
from fed_lorac.training.objectives.objective import Guesses, Losses, Objective

__all__ = ["LabelFree", "cross_entropy", "entropy", "log_probabilities", "marginal_entropy"]


@dataclass(frozen=True)
class LabelFree(Objective):
    """An objective that sees no label, and can make a network say one thing of everything, or nothing of anything: so
    it is watched.

    A camera whose predictions in the last pass leave these bounds, or are not finite, has collapsed: its adapter is put
    back to a fresh one.
    """

    diversity: float = setting(0.0, "weight of the entropy of the batch's mean prediction, which is raised", least=0)
    least_entropy: float = setting(
        0.001,
        "mean entropy of predictions, over ln C, below which a camera resets its adapter",
        least=0,
        below=1,
    )
    most_entropy: float = setting(
        0.8, "mean entropy of predictions, over ln C, above which a camera resets its adapter; 1: none", above=0, most=1
    )
    largest_class: float = setting(
        0.9, "mean probability of one class above which a camera resets its adapter; 1: none", above=0, most=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_entropy >= self.most_entropy:
            raise ConfigError(
                "A camera has collapsed where the mean entropy of its predictions leaves [least_entropy, "
                f"most_entropy], so the first is below the second; came {self.least_entropy} and {self.most_entropy}. "
                "Lower the first or raise the second."
            )

    def spread(self, log_p: Float[Tensor, "b n classes"]) -> Float[Tensor, " n"]:
        """-diversity * H(mean p) over each camera's own batch: lower, the more evenly classes are predicted."""
        return -self.diversity * marginal_entropy(log_p) if self.diversity else log_p.new_zeros(log_p.shape[1])

    def refuses(self, batch_size: int) -> str | None:
        """One image alone: its prediction is the batch's mean."""
        if batch_size > 1 or not self.diversity:
            return None
        return (
            "The entropy of a batch's mean prediction needs several images: of one alone it is that of its prediction, "
            "which this objective lowers. Set local.batch_size to 2 or more, better 50, or diversity = 0."
        )

    def collapsed(self, entropy: float, shares: Float[Tensor, " classes"]) -> bool:
        """Whether the mean entropy (over ln C) or a class's share leaves the bounds, or is no number."""
        sure = self.least_entropy <= entropy and (entropy <= self.most_entropy or self.most_entropy == 1)
        return not (sure and float(shares.max()) <= self.largest_class)

    def guessed(
        self,
        each: Float[Tensor, " n"],
        predicted: Float[Tensor, "b n classes"],
        targets: Int64[Tensor, "b n"] | None = None,
        used: Bool[Tensor, "b n"] | None = None,
    ) -> Losses:
        """Losses with their guesses: of all images, and of each the likeliest class, where nothing else is said."""
        predicted = predicted.detach()
        targets = predicted.argmax(-1) if targets is None else targets
        used = torch.ones_like(targets, dtype=torch.bool) if used is None else used
        return Losses(each, Guesses(predicted, targets, used))


def log_probabilities(logits: Float[Tensor, "*shape classes"]) -> Float[Tensor, "*shape classes"]:
    """ln p, in float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def entropy(log_p: Float[Tensor, "*shape classes"]) -> Float[Tensor, "*shape"]:
    """H(p) = -sum_c p_c ln p_c, in nats."""
    return -(log_p.exp() * log_p).sum(-1)


def marginal_entropy(log_p: Float[Tensor, "b n classes"]) -> Float[Tensor, " n"]:
    """H(mean over a camera's own batch of p): ln C where its classes are even, 0 where there is one alone."""
    return entropy(log_p.exp().mean(0).clamp_min(1e-12).log())


def cross_entropy(
    q: Float[Tensor, "*shape classes"], log_p: Float[Tensor, "*shape classes"]
) -> Float[Tensor, "*shape"]:
    """H(q, p) = -sum_c q_c ln p_c, in nats."""
    return -(q * log_p).sum(-1)
