"""entropy-filtered: entropy of reliable samples only, weighted, and on a flat ground where asked. Knows logits.

EATA (Niu et al. 2022, arXiv 2204.02610, equations 2 to 5) leaves out samples whose entropy is above E0, and those whose
prediction is like the mean of former ones, and weighs the rest by exp(E0 - E). Its pull towards the source by Fisher
information is left out: `local.prox_mu` pulls towards the start of the round. SAR (Niu et al. 2023, arXiv 2302.12400,
equations 2 to 4) takes the gradient a step uphill, of those samples that are reliable there too.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fed_lorac.runtime.settings import setting
from fed_lorac.training.objectives.label_free import LabelFree, entropy, log_probabilities
from fed_lorac.training.objectives.objective import Batch, Losses

__all__ = ["EntropyFiltered"]

_MEAN, _KEEPS = "mean prediction", 0.9  # EATA's moving average keeps so much of what it was


@dataclass(frozen=True)
class EntropyFiltered(LabelFree):
    """mean over the samples in use of exp(E0 - H(p)) H(p), the weight without a gradient; E0 = margin * ln C."""

    source = "EATA, arXiv 2204.02610; sharpness: SAR, arXiv 2302.12400"

    margin: float = setting(0.4, "a sample is reliable below this entropy, over ln C", above=0, most=1)
    redundancy: float = setting(
        0.4, "a sample is left out at this cosine with the mean of former predictions; 1: none is", above=0, most=1
    )
    weighted: bool = setting(True, "surer samples weigh more")
    sharpness: float = setting(0.0, "how far uphill the gradient is taken; SAR: 0.05, 0: not at all", least=0)

    @property
    def radius(self) -> float:
        """The sharpness."""
        return self.sharpness

    def losses(self, batch: Batch) -> Losses:
        """Each camera's loss; 0 where none of its samples is in use."""
        log_p = log_probabilities(batch.logits)
        each, p = entropy(log_p), log_p.exp().detach()
        limit = self._limit(p)
        used = each.detach() < limit
        if self.redundancy < 1:
            used = self._new(batch, p, used)
        return self.guessed(_mean(each * self._weights(each, limit), used) + self.spread(log_p), p, used=used)

    def losses_uphill(self, batch: Batch, first: Losses) -> Float[Tensor, " n"]:
        """The same of those of the samples in use that are reliable uphill."""
        assert first.guesses is not None
        log_p = log_probabilities(batch.logits)
        each, limit = entropy(log_p), self._limit(first.guesses.predicted)
        sure = first.guesses.used & (each.detach() < limit)
        return _mean(each * self._weights(each, limit), sure) + self.spread(log_p)

    def _limit(self, p: Tensor) -> float:
        return self.margin * math.log(p.shape[-1])

    def _weights(self, each: Tensor, limit: float) -> Tensor:
        return (limit - each.detach()).exp() if self.weighted else torch.ones_like(each)

    def _new(self, batch: Batch, p: Tensor, used: Tensor) -> Tensor:
        """Those in use that are unlike the moving mean; the mean moves by those that are left."""
        mean = batch.recall(_MEAN, p.shape[-1]).to(p)
        known = mean.any(-1)  # of cameras that have one
        likeness = (p * mean).sum(-1) / (p.norm(dim=-1) * mean.norm(dim=-1)).clamp_min(1e-12)
        used = used & (~known | (likeness < self.redundancy))
        latest = _mean(p, used)
        moved = torch.where(known[:, None], _KEEPS * mean + (1 - _KEEPS) * latest, latest)
        batch.remember(_MEAN, torch.where(used.any(0)[:, None], moved, mean))
        return used


def _mean(values: Float[Tensor, "b n *more"], used: Tensor) -> Float[Tensor, "n *more"]:
    """The mean over each camera's samples in use; 0 where there is none."""
    which = used.view(*used.shape, *[1] * (values.ndim - 2))
    return torch.where(which, values, 0).sum(0) / which.sum(0).clamp_min(1)
