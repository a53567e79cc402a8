"""mask: which of the base's weights are dropped, as probabilities. Knows networks; no cameras, rounds or frames.

FedPM (Isik et al. 2023, arXiv 2209.15517) leaves a network's weights as they are and learns, for each, the probability
that it is there; a camera sends one draw of its mask, a bit a weight, of which the mean over cameras is that of the
probabilities. Here the base is pretrained, so that nearly all weights are there at first, and a state is what a round
changes of the probabilities: it is sparse where the probabilities themselves are not (DeltaMask, arXiv 2311.17299).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting

__all__ = ["Mask", "MaskedConv2d"]


class MaskedConv2d(AdaptedConv2d):
    """A convolution whose weight is `kept` where it is there: p, the change of the probability that it is not, trained
    from zero; `kept` and `before`, that probability where p counts from, frozen; all of the weight's shape.

    The network has the mean weight, kept * (1 - before - p), and no draw of it. In it before + p stays from 0 to 1, and
    the gradient passes to p as if it did not: what was driven to an end comes back. What is trained, the parameter "p",
    is p times `unit`, a weight's size: a step, decay, a pull and clipping are then as in full fine-tuning.
    """

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """-kept * p, (..., out, in, K_h, K_w), p being what it may be."""
        p = own["p"] / own["unit"]
        return -own["kept"] * (p + (_possible(p, own["before"]) - p).detach())

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same of any p, linear: a mean of draws may be beyond what one may be."""
        return {"weight": -own["kept"] * own["p"]}

    def read_own(self) -> dict[str, Tensor]:
        """p, being what it may be."""
        p = _possible(self.get_parameter("p").detach() / self.get_buffer("unit"), self.get_buffer("before"))
        return {"p": p.to("cpu", torch.float32, memory_format=torch.contiguous_format)}

    def load_own(self, came: Mapping[str, Tensor]) -> None:
        """The inverse, to rounding."""
        p = self.get_parameter("p")
        p.copy_(came["p"].to(p) * self.get_buffer("unit"))


def _possible(p: Tensor, before: Tensor) -> Tensor:
    """p cut to where before + p is a probability, 0 and at most 1 of a change always among it."""
    return p.minimum((1 - before).clamp(0, 1)).maximum((-before).clamp(-1, 0))


@dataclass(frozen=True, kw_only=True)
class Mask(ConvAdapter):
    """Every convolution's weights are dropped with probabilities that are trained. State: "<conv>.p", of the weight's
    shape, each number from -1 to 1.

    At first each weight W is dropped with the probability `dropped`, and is W / (1 - dropped) where it is not, so that
    the mean is the base: probabilities may fall as well as rise, and weights with them. `kept` is of the starting base,
    the same for all cameras and rounds, so the delta is linear in the state. The gradient of p is some |W| of that of
    the weight, so what is trained is p times the root mean square of a convolution's `kept`: its step in the weight is
    as long as full fine-tuning's, times `lr_scale`.

    FedPM draws a mask in each forward pass, and trains scores, of which probabilities are the sigmoid. Here the mean
    weight is trained, which is what is measured and merged, and the probabilities themselves: a sigmoid hardly passes a
    gradient near 0, where those of a pretrained network are.
    """

    formula = "Σ out in K² + ends"
    source = "FedPM, arXiv 2209.15517; of changes: DeltaMask, arXiv 2311.17299"
    found_lr = 0.1
    layer = MaskedConv2d
    linear = True
    bounded = True

    dropped: float = setting(
        0.1, "probability that a weight is dropped at first; kept ones weigh so much more", least=0, below=1
    )
    lr_scale: float = setting(1.0, "the probabilities' learning rate: so many times local.lr", above=0)
    kept: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)  # by convolution, once fitted

    @property
    def suggested_lr(self) -> float:
        """As `Adapter`'s: of `local.lr` times `lr_scale`."""
        return self.found_lr / self.lr_scale

    @property
    def of_probabilities(self) -> bool:
        """Ends that are trained are no probabilities."""
        return not (self.train_first_conv or self.train_classifier)

    def fit_to(self, base: nn.Module) -> Self:
        """With the weights of a base's convolutions, grouped ones too."""
        if self.kept is not None:
            return self
        own = super(ConvAdapter, self).fit_to(base)
        names = self.convolutions(base)
        weights = {name: base.get_parameter(f"{name}.weight").detach() for name in names}
        return replace(own, kept={n: w / (1 - self.dropped) for n, w in weights.items()}, dense=())

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """No change of the probabilities, which are those of the weight that the convolution has."""
        kept = (self.kept or {}).get(name)
        if kept is None or kept.shape != conv.weight.shape:
            raise FactorError(
                f"A mask is of the weights that it was fitted to; it knows none of {name!r} with the shape "
                f"{tuple(conv.weight.shape)}. Is it another model? Fit the adapter to a network of its kind."
            )
        weight, kept = conv.weight.detach(), kept.to(conv.weight)
        there = torch.where(kept == 0, 1 - self.dropped, weight / kept)
        unit = math.sqrt((float(kept.double().square().mean()) or 1.0) / self.lr_scale)
        frozen = {"kept": kept, "before": 1 - there, "unit": kept.new_full((1, 1, 1, 1), unit)}
        return Branch({"p": torch.zeros_like(weight)}, frozen)
