"""The ends of a network, the first convolution and the classifier: trained as they are, changed by a product of low
rank, or left. Knows settings, names and factors; not what is adapted between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.algebra.factors import view_of
from fed_lorac.adapters.branched import BranchAdapter
from fed_lorac.adapters.branches import Adapted, AdaptedConv2d, AdaptedLinear, Branch, Layer, layer_named
from fed_lorac.adapters.targets import check_end, ends_of
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import setting
from fed_lorac.runtime.spelling import toml
from fed_lorac.seeds import torch_stream

__all__ = ["Ends", "trains_classifier", "without_ends"]

_CLASSIFIER, _FIRST = "train_classifier", "train_first_conv"


class _Product(Adapted):
    """A layer that gains scale * B A: B (out, r) trained, A (r, numbers of an output) frozen."""

    scale: float

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """scale * B A, (..., out, numbers of an output)."""
        return (self.scale * own["B"]) @ own["A"]

    def to_delta(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The pair; its scale is the adapter's."""
        return {"A": own["A"], "B": own["B"]}


class EndConv2d(_Product, AdaptedConv2d):
    """The first convolution, or one that is the classifier."""


class EndLinear(_Product, AdaptedLinear):
    """The classifier."""


@dataclass(frozen=True, kw_only=True)
class Ends(BranchAdapter):
    """What an adapter that may train the ends says of them.

    Of low rank an end's change is B A in the "filter" view, (out, in*K*K): A drawn and frozen, rows of length 1 in the
    mean, and B trained from zero, so that the delta is linear in B. An end whose B would have as many numbers as its
    weight, or more, is trained as it is.
    """

    of_ends: ClassVar[tuple[str, ...]] = ("end_rank",)
    """Settings that have a meaning only where an end is trained."""

    train_first_conv: bool = setting(True, "train, and send, the first convolution's weight")
    train_classifier: bool = setting(True, "train, and send, the classifier's weight")
    end_rank: int = setting(
        0, "rank of the change of the ends that are trained; 0: their weights are trained as they are", least=0
    )
    classifier_elsewhere: bool = field(default=False, compare=False, repr=False)  # another part trains it

    def __post_init__(self) -> None:
        super().__post_init__()
        vain = [name for name in self.of_ends if getattr(self, name) != getattr(type(self), name)]
        if vain and not (self.train_first_conv or self.train_classifier):
            raise ConfigError(
                f"{vain[0]} says how the ends that are trained change; {type(self).__name__} came with {vain[0]} = "
                f"{toml(getattr(self, vain[0]))}, train_first_conv = false and train_classifier = false. Remove it, or "
                "train an end."
            )

    def fit_to(self, base: nn.Module) -> Self:
        """With the ends that change by low rank; FactorError for one that can carry no branch."""
        if self.thin is not None:
            return self
        names = [name.removesuffix(".weight") for name in self._all_ends(base)] if self.end_rank else []
        for name in names:
            check_end(base, name)
        return replace(self, thin=tuple(name for name in names if self._is_thin(name, layer_named(base, name))))

    def _is_thin(self, name: str, layer: Layer) -> bool:
        trained = self.end_branch(layer, torch_stream(0, "size")).trained.values()
        return sum(tensor.numel() for tensor in trained) < layer.weight.numel()

    def ends(self, model: nn.Module) -> list[str]:
        """Names of the ends' weights that are trained as they are; FactorError where a network has none."""
        return [name for name in self._all_ends(model) if name.removesuffix(".weight") not in (self.thin or ())]

    def _all_ends(self, model: nn.Module) -> list[str]:
        return ends_of(model, first_conv=self.train_first_conv, classifier=self.train_classifier)

    def places(self, model: nn.Module) -> tuple[str, ...]:
        """The ends that change by low rank."""
        return tuple(name for name, _ in model.named_modules() if name in (self.thin or ()))

    def kind_of(self, name: str, layer: nn.Module) -> type[Adapted]:
        """By the layer's kind."""
        return EndLinear if isinstance(layer, nn.Linear) else EndConv2d

    def end_branch(self, layer: Layer, generator: torch.Generator) -> Branch:
        """A drawn, and B = 0."""
        rows, cols = view_of(layer.weight.shape, "filter")
        A = torch.randn(self.end_rank, cols, generator=generator) / math.sqrt(cols)
        return Branch({"B": torch.zeros(rows, self.end_rank)}, {"A": A}, {"scale": self.scale})


def trains_classifier(part: Adapter) -> bool:
    """Whether an adapter trains the classifier, as far as its settings say."""
    return bool(getattr(part, _CLASSIFIER, part.trains_classifier))


def without_ends(
    part: BranchAdapter, every: tuple[BranchAdapter, ...], before: Sequence[BranchAdapter]
) -> BranchAdapter:
    """A part without the ends that one before it trains, or one that has no choice."""
    own, changes = {one.name for one in fields(part)}, dict[str, Any]()
    taken = {_FIRST} if any(getattr(one, _FIRST, False) for one in before) else set()
    taken |= {_CLASSIFIER} if any(map(trains_classifier, before)) else set()
    taken |= {_CLASSIFIER} if any(one.trains_classifier for one in every) else set()
    if _CLASSIFIER in taken:
        changes["classifier_elsewhere"] = True
    if not any(getattr(part, end, False) and end not in taken for end in (_FIRST, _CLASSIFIER)):
        changes |= {name: getattr(type(part), name) for name in getattr(part, "of_ends", ())}
    changes |= dict.fromkeys(taken, False)
    return replace(part, **{name: value for name, value in changes.items() if name in own})
