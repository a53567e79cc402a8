"""The contract of an adapter: what of a network is trained, how that is read as a state, and what a state says. Knows
networks and states; not cameras, rounds or bytes.

An author's own adapter is one of two kinds. `dense.DenseAdapter` trains parameters as they are: say which.
`conv_adapter.ConvAdapter` puts a branch on convolutions: say what a branch starts with and which delta it makes. This
is a whole one, a gain on each filter's frozen weight, linear in what is trained:

    class GainConv2d(AdaptedConv2d):
        strength: float

        def delta(self, own: Mapping[str, Tensor]) -> Tensor:
            return self.strength * own["gain"] * own["pattern"]

    @dataclass(frozen=True)
    class Gains(ConvAdapter):
        source = "Smith et al. 2027, arXiv 2701.00001"
        linear = True
        layer = GainConv2d
        strength: float = setting(0.5, "what each gain is multiplied by", above=0)

        def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
            pattern = torch.randn(1, *conv.weight.shape[1:], generator=generator)
            gain = torch.zeros(conv.out_channels, 1, 1, 1)
            return Branch({"gain": gain}, {"pattern": pattern}, {"strength": self.strength})
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.bases import Bases
from fed_lorac.adapters.deltas import State, ToDelta, is_delta_already, set_tensors
from fed_lorac.adapters.plain import copied

__all__ = ["Adapter", "trainable_parameters"]


def trainable_parameters(model: nn.Module) -> int:
    """How many numbers an optimizer moves: on an attached network, what a camera uploads."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


class Adapter(ABC):
    """One way to adapt a network: a frozen dataclass whose settings are fields made by `runtime.settings.setting`.

    A state is what a camera sends: float32 tensors by name. Factor pairs and dense tensors are deltas by themselves.
    Where part of a delta is frozen and known to both ends (a drawn factor, a code of the base's weights), the state is
    without it, and `to_delta` puts it back.

    Raises:
        ConfigError: a setting is out of its range.
    """

    source: ClassVar[str] = ""
    """Where the method is from: authors or title, and an arXiv id or doi."""
    has_factors: ClassVar[bool] = False
    """States hold factor pairs A and B of any rank, and both are trained."""
    state_is_delta: ClassVar[bool] = True
    """A state is a delta as it stands; else `to_delta` adds what is frozen."""
    trains_everything: ClassVar[bool] = False
    """Every parameter is trained, so that nothing of the base stays."""
    personal: tuple[int, ...] = ()
    """Which parts of it stay with its camera, where it is made of parts."""
    found_lr: ClassVar[float] = 0.0
    """The `local.lr` that a search found, with the default settings (docs/methods.md, Learning rates); 0: nobody
    searched."""
    trains_classifier: ClassVar[bool] = False
    """The classifier is trained, where no setting `train_classifier` says."""
    adapts_to_batch: ClassVar[bool] = False
    """What is trained, with labels, is how the network adapts to each batch that it is given: it is to be given that
    first (`prepare`), and its operations are not a plain network's."""

    @property
    def linear(self) -> bool:
        """The delta is linear in the state: the mean of states then stands for the mean of deltas."""
        return False

    @property
    def of_probabilities(self) -> bool:
        """All numbers of a state are changes of probabilities, from -1 to 1: a codec may send a draw of each."""
        return False

    @property
    def draws_anew(self) -> bool:
        """Some of what is trained starts as `attach` drew it: states of two rounds then share no basis."""
        return False

    @property
    def finds_bases(self) -> bool:
        """What it freezes is found by the server of a run, of gradients in a first round (`gradients_wanted`)."""
        return False

    @property
    def suggested_lr(self) -> float:
        """The same under these settings."""
        return self.found_lr

    @property
    def has_rank(self) -> bool:
        """The method has a setting `rank`."""
        return hasattr(self, "rank")

    def __post_init__(self) -> None:
        own_fields: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        for own in own_fields:
            if rule := own.metadata.get("rule"):
                object.__setattr__(self, own.name, rule.checked(own.name, getattr(self, own.name)))

    @property
    def formula(self) -> str:
        """How many numbers a state holds, over a network's convolutions (out, in, K, K) but the first. R is the rank
        rows of A, r*K or r, and `ends` the first convolution's and the classifier's weights."""
        return ""

    @property
    def scale(self) -> float:
        """What products B @ A of a delta of `to_delta` are still to be multiplied by."""
        return 1.0

    def fit_to(self, base: nn.Module) -> Self:
        """This adapter with all that it takes from a starting base's weights or layout; itself, where it has that, or
        needs nothing. `attach` fits an adapter to the very network where nobody did before."""
        return self

    def fit_like(self, largest: "Adapter", base: nn.Module) -> Self:
        """The same where cameras differ in rank, `largest` being that of the highest, fitted: what both train as it is
        must be the same."""
        return self.fit_to(base)

    def gradients_wanted(self, base: nn.Module) -> tuple[str, ...]:
        """Layers whose weights' gradients it finds its bases of; of a fitted adapter."""
        return ()

    def bases_of(self, gradients: State) -> Mapping[str, Bases]:
        """The bases, by layer, of their gradients."""
        return {}

    def with_bases(self, found: Mapping[str, Bases]) -> Self:
        """This adapter, not fitted yet, with bases that were found."""
        return self

    def relative_to_init(self) -> "Adapter":
        """This adapter with a state that is, as far as it can be, relative to what `attach` drew: for lossy codecs,
        which lose a share of what they are given, and so lose less of a difference."""
        return self

    def with_frozen_basis(self) -> "Adapter | None":
        """This adapter with all that `attach` draws frozen, so that it is linear; None, where there is no such form."""
        return None

    def prepare(self, model: nn.Module) -> None:  # noqa: B027  (most need nothing)
        """Give a plain network, in place, the parameters that it needs beside its own before `attach`, where a method
        has some; its outputs do not change. FactorError where it cannot have them."""

    @abstractmethod
    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """Make a plain network trainable this way, in place; its outputs do not change yet.

        FactorError, with nothing altered, where it is not plain: see `plain.check_plain`, which comes first.
        """

    def restart(self, model: nn.Module, weights: State, generator: torch.Generator) -> None:
        """Begin anew, in place, on a network that carries this adapter: `weights`, by name, take the place of its own,
        what `attach` draws is drawn again, and deltas count from here. For rounds, which need no second look at a
        network."""
        self.detach(model)
        set_tensors(model, weights)
        self.attach(model, generator)

    def is_personal(self, key: str) -> bool:
        """Whether a tensor of the state stays with its camera, which goes on training it, and is never sent; of a
        fitted adapter."""
        return False

    @abstractmethod
    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """The state since `attach`: float32, contiguous, on the CPU, sorted by name."""

    @abstractmethod
    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Put a state that was read before into a network attached alike; FactorError on a misfit."""

    @abstractmethod
    def detach(self, model: nn.Module) -> None:
        """Take the adapter off, in place: the plain network it was attached to, its trained values gone."""

    @abstractmethod
    def merge(self, model: nn.Module) -> nn.Module:
        """A copy with the delta folded into its weights: a plain network, with the same outputs; the attached one
        stays as it is."""

    def delta(self, model: nn.Module) -> dict[str, Tensor]:
        """The dense delta of every parameter that is not what it was, by name."""
        plain = copied(model)
        self.detach(plain)
        merged = dict(self.merge(model).named_parameters())
        deltas = {name: merged[name].detach() - before.detach() for name, before in plain.named_parameters()}
        return {name: delta for name, delta in deltas.items() if delta.any()}

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """What states mean that were read from a network like `base`, attached by a generator in the same state.

        The deltas it gives are of float32 tensors on the CPU, and their products are still to be multiplied by `scale`.
        """
        return is_delta_already
