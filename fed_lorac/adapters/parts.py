"""Adapters made of parts: norm layers beside a branch on each convolution, say, as one adapter. Knows networks and the
two kinds of adapters; not what any of them computes.

    adapter = Parts((NormAffine(), LoraC(rank=2, layers="layer1.*")))

Each part keeps its settings. A state has every part's tensors, and the delta is the parts' sum: as no tensor is two
parts', it is linear if its parts are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self, cast

import torch
from torch import Tensor, nn

from fed_lorac.adapters import branches
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.bases import Bases
from fed_lorac.adapters.branched import BranchAdapter
from fed_lorac.adapters.branches import Adapted, Branch, adapted_layers
from fed_lorac.adapters.conv_adapter import ConvAdapter
from fed_lorac.adapters.deltas import State, ToDelta, restart_dense, set_tensors
from fed_lorac.adapters.ends import trains_classifier, without_ends
from fed_lorac.adapters.plain import RATES_NOTE, check_plain
from fed_lorac.errors import ConfigError, FactorError
from fed_lorac.seeds import torch_stream

__all__ = ["Parts"]


@dataclass(frozen=True)
class Parts(Adapter):
    """Several adapters as one, each of different tensors.

    An end that several parts would train as it is, the first convolution's or the classifier's weight, belongs to the
    first of them. `lr_factors`: what the learning rate is multiplied by for each part's tensors. `personal`: the places
    of parts that stay with each camera, which trains them on from round to round beside what it shares (FedSim of
    Pillutla et al. 2022, arXiv 2204.03809); what is said of the whole below is then said of what is sent.

    Raises:
        ConfigError: there are fewer than two parts, one is of no kind that can be a part (`BranchAdapter`), the factors
            are not as many as the parts, or no part is sent.
    """

    source = "made of parts, each with a source of its own"

    parts: tuple[BranchAdapter, ...]
    lr_factors: tuple[float, ...] = ()
    personal: tuple[int, ...] = ()
    places: tuple[tuple[str, ...], ...] | None = field(default=None, compare=False, repr=False)  # branches, once fitted
    own: frozenset[str] = field(default=frozenset(), compare=False, repr=False)  # of personal parts: layers, tensors

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in self.parts:
            if not isinstance(part, BranchAdapter) or part.adapts_to_batch:
                raise ConfigError(
                    "A part changes the network's weights, as they are (DenseAdapter) or by branches (ConvAdapter); "
                    f"{type(part).__name__} does neither. Choose it alone."
                )
        if len(self.parts) < 2 or len(self.lr_factors) not in (0, 1, len(self.parts)):
            raise ConfigError(
                "An adapter of parts has two or more, and one learning-rate factor for each, or for all; got "
                f"{len(self.parts)} parts and lr_factors = {', '.join(f'{f:g}' for f in self.lr_factors)}. Match them."
            )
        if not set(self.personal) < set(range(len(self.parts))):
            raise ConfigError(
                f"Of an adapter's parts some are personal and at least one is sent; got {len(self.parts)} parts and "
                f"personal = {self.personal}. Name places from 0, and not all of them."
            )

    @property
    def _sent(self) -> tuple[BranchAdapter, ...]:
        return tuple(part for place, part in enumerate(self.parts) if place not in self.personal)

    def is_personal(self, key: str) -> bool:
        """Whether it is of a personal part."""
        return key in self.own or key.rpartition(".")[0] in self.own

    @property
    def linear(self) -> bool:
        """Every part's delta is."""
        return all(part.linear for part in self._sent)

    @property
    def draws_anew(self) -> bool:
        """Some part does."""
        return any(part.draws_anew for part in self._sent)

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """Some part is."""
        return any(part.bounded for part in self.parts)

    @property
    def of_probabilities(self) -> bool:
        """Every part is."""
        return all(part.of_probabilities for part in self._sent)

    @property
    def finds_bases(self) -> bool:
        """Some part does."""
        return any(part.finds_bases for part in self.parts)

    @property
    def has_factors(self) -> bool:  # type: ignore[override]
        """Some part has, and no other's state is to be turned into a delta."""
        return self.state_is_delta and any(part.has_factors for part in self._sent)

    @property
    def state_is_delta(self) -> bool:  # type: ignore[override]
        """Every part's is, and one scale stands for all."""
        return all(part.state_is_delta for part in self._sent) and len(self._scales) < 2

    @property
    def trains_everything(self) -> bool:  # type: ignore[override]
        """Some part does."""
        return any(part.trains_everything for part in self.parts)

    @property
    def trains_classifier(self) -> bool:  # type: ignore[override]
        """Some part does."""
        return any(map(trains_classifier, self.parts))

    @property
    def rank(self) -> int:
        """The largest of the parts that have one; AttributeError where none has."""
        ranks: list[int] = [rank for part in self.parts if (rank := getattr(part, "rank", None)) is not None]
        if not ranks:
            raise AttributeError("rank")
        return max(ranks)

    @property
    def reconstruction_error(self) -> float | None:
        """That of the part that has one."""
        found = (getattr(part, "reconstruction_error", None) for part in self.parts)
        return next((error for error in found if error is not None), None)

    @property
    def formula(self) -> str:
        """The parts', whose ends count once."""
        return "; ".join(part.formula for part in self.parts)

    @property
    def _scales(self) -> set[float]:
        return {part.scale for part in self.parts if _branches(part)}

    @property
    def scale(self) -> float:
        """The one scale of the parts' factors; where they differ it is in what `to_delta` gives."""
        return next(iter(self._scales)) if len(self._scales) == 1 else 1.0

    def _of_sent(self, change: Callable[[BranchAdapter], Adapter]) -> Self:
        parts = (part if place in self.personal else change(part) for place, part in enumerate(self.parts))
        return replace(self, parts=tuple(cast(BranchAdapter, part) for part in parts))

    def gradients_wanted(self, base: nn.Module) -> tuple[str, ...]:
        """Of all parts."""
        return tuple(name for part in self.parts for name in part.gradients_wanted(base))

    def bases_of(self, gradients: State) -> Mapping[str, Bases]:
        """Of the part that finds some."""
        finds = next((part for part in self.parts if part.finds_bases), None)
        return finds.bases_of(gradients) if finds else {}

    def with_bases(self, found: Mapping[str, Bases]) -> Self:
        """Of its parts' such forms."""
        return replace(self, parts=tuple(part.with_bases(found) for part in self.parts))

    def relative_to_init(self) -> Self:
        """Of its parts' such forms."""
        return self._of_sent(lambda part: part.relative_to_init())

    def with_frozen_basis(self) -> Self | None:
        """Of its parts' such forms, those that draw nothing as they are; None, where some part has none, or all are
        dense."""
        forms = [part.with_frozen_basis() for part in self._sent]
        needed = [form for form, part in zip(forms, self._sent, strict=True) if _branches(part)]
        if not needed or None in needed:
            return None
        return self._of_sent(lambda part: part.with_frozen_basis() or part)

    def fit_to(self, base: nn.Module) -> Self:
        """With its parts fitted, each end given to the first part that trains it.

        FactorError where two parts train the same tensor.
        """
        if self.places is not None:
            return self
        check_plain(base)
        parts: list[BranchAdapter] = []
        for part in self.parts:
            parts.append(without_ends(part, self.parts, parts).fit_to(base))
        places = tuple(part.places(base) for part in parts)
        owners: dict[str, str] = {}
        for part, own in zip(parts, places, strict=True):
            for name in (*(f"{conv}.weight" for conv in own), *part.trained_beside(base)):
                if name in owners:
                    raise FactorError(
                        f"Parts train different tensors; {owners[name]} and {type(part).__name__} both train {name!r}. "
                        "Leave one of them out, or build `Parts` with layers that do not overlap."
                    )
                owners[name] = type(part).__name__
        mine = {name for k in self.personal for name in (*places[k], *parts[k].trained_beside(base))}
        return replace(self, parts=tuple(parts), places=places, own=frozenset(mine))

    def fit_like(self, largest: Adapter, base: nn.Module) -> Self:
        """As `fit_to`, each part like that of the adapter of the highest rank."""
        others = cast(Parts, largest).parts
        pairs = zip(self.parts, others, strict=True)
        parts = tuple(
            without_ends(part, self.parts, others[:place]).fit_like(other, base)
            for place, (part, other) in enumerate(pairs)
        )
        return replace(self, parts=parts).fit_to(base)

    def convolutions(self, model: nn.Module) -> tuple[str, ...]:
        """Of all parts, in the network's order: what layers may be chosen among."""
        found = {name for part in self.parts if isinstance(part, ConvAdapter) for name in part.convolutions(model)}
        return tuple(name for name, _ in model.named_modules() if name in found)

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Every part at once. FactorError, with nothing altered, where two parts train the same tensor or one cannot be
        attached."""
        fitted, found = self.fit_to(model), dict[str, tuple[type[Adapted], Branch]]()
        for part, draw in zip(fitted.parts, fitted._draws(generator), strict=True):
            found |= part.branches(model, draw)
        beside = [part.trained_beside(model) for part in fitted.parts]
        branches.attach(model, found, [name for names in beside for name in names])
        if factors := fitted._factors():
            rates = {
                name: factor
                for factor, own, names in zip(factors, fitted.places or (), beside, strict=True)
                for name in (*(f"{conv}.{k}" for conv in own for k in found[conv][1].trained), *names)
            }
            setattr(model, RATES_NOTE, rates)

    def _factors(self) -> tuple[float, ...]:
        """One for each part; empty where all are 1."""
        each = self.lr_factors * len(self.parts) if len(self.lr_factors) == 1 else self.lr_factors
        return each if any(factor != 1 for factor in each) else ()

    @torch.no_grad()
    def restart(self, model: nn.Module, weights: State, generator: torch.Generator) -> None:
        """Other weights, and every part drawn again; this adapter is fitted."""
        set_tensors(model, weights)
        restart_dense(model)
        layers = adapted_layers(model)
        for part, own, draw in zip(self.parts, self.places or (), self._draws(generator), strict=True):
            part.redraw({name: layers[name] for name in own}, draw)

    def _draws(self, generator: torch.Generator) -> list[torch.Generator]:
        """A stream for each part, so that none depends on how much another draws."""
        seed = int(torch.randint(2**62, (), generator=generator))
        return [torch_stream(seed, "part", place) for place in range(len(self.parts))]

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Every part's tensors."""
        return branches.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Every part's tensors back into a network attached alike."""
        branches.load_state(model, state)

    def detach(self, model: nn.Module) -> None:
        """Every part off."""
        branches.detach(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """A plain copy with every part's delta in its weights."""
        return branches.merged(model)

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """The parts' deltas together; where their scales differ, products have theirs in B."""
        fitted, found = self.fit_to(base), []
        for part, own, draw in zip(fitted.parts, fitted.places or (), fitted._draws(generator), strict=True):
            if own:
                found.append((own, part.to_delta(base, draw), part.scale / self.scale))
        return partial(_to_delta, found, some=bool(self.personal))


def _to_delta(parts: list[tuple[tuple[str, ...], ToDelta, float]], state: State, *, some: bool) -> dict[str, Tensor]:
    """`some`: a state may be of some parts alone, of those that are sent or of the others."""
    left, said = dict(state), dict[str, Tensor]()
    for own, to_delta, scale in parts:
        theirs = {key: left.pop(key) for key in list(left) if key.rpartition(".")[0] in own}
        if some and not theirs:
            continue
        delta = to_delta(theirs)
        said |= {key: tensor * scale if scale != 1 and key.endswith(".B") else tensor for key, tensor in delta.items()}
    return left | said


def _branches(part: BranchAdapter) -> bool:
    """Whether a part has branches, as far as its settings say."""
    return isinstance(part, ConvAdapter) or bool(getattr(part, "end_rank", 0))
