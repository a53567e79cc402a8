"""What a camera trains, by name. Knows how each method is attached and read; not cameras, rounds or bytes."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from fed_lorac.adapters import dense, lora_c
from fed_lorac.adapters.aad import AdditiveDecomposition
from fed_lorac.adapters.adapter import Adapter, ToDelta
from fed_lorac.adapters.deltas import State
from fed_lorac.adapters.filter_atoms import Atoms, OvercompleteAtoms
from fed_lorac.adapters.plain import check_plain, copied
from fed_lorac.config import AdapterConfig
from fed_lorac.errors import FactorError

__all__ = ["ADAPTERS", "SOURCES", "Adapter", "adapter_of"]


@dataclass(frozen=True)
class LoraC(Adapter):
    """LoRA-C, see `fed_lorac.adapters.lora_c`."""

    rank: int
    alpha: float
    rank_mode: str = "auto"
    kernel_wise: bool = False
    train_first_conv: bool = True
    train_classifier: bool = True

    @property
    def scale(self) -> float:
        """alpha / r."""
        return self.alpha / self.rank

    def attach(self, model: nn.Module, generator: torch.Generator, *, freeze_a: bool = False) -> None:
        """Factors on every convolution but the first, B zero, A drawn from `generator`."""
        lora_c.attach(
            model,
            rank=self.rank,
            alpha=self.alpha,
            rank_mode=self.rank_mode,
            kernel_wise=self.kernel_wise,
            freeze_a=freeze_a,
            generator=generator,
            train_first_conv=self.train_first_conv,
            train_classifier=self.train_classifier,
        )

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Factors, and the changes of the first convolution and the classifier."""
        return lora_c.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Factors and changes back into a network attached alike."""
        lora_c.load_state(model, state)

    def detach(self, model: nn.Module) -> None:
        """As `lora_c.detach`."""
        lora_c.detach(model)
        vars(model).pop(_DRAWN, None)

    def merge(self, model: nn.Module) -> nn.Module:
        """As `lora_c.merge`."""
        merged = lora_c.merge(model)
        vars(merged).pop(_DRAWN, None)
        return merged

    def relative_to_init(self) -> Adapter:
        """A as its change since it was drawn."""
        return RelativeLoraC(**{own.name: getattr(self, own.name) for own in fields(self)})

    def drawn(self, base: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
        """ "<conv>.A" as `attach` would draw it for a network like `base`."""
        twin = copied(base).cpu()
        self.attach(twin, generator, freeze_a=False)
        return _left_factors(twin)


@dataclass(frozen=True)
class RelativeLoraC(LoraC):
    """LoRA-C whose state has of A the change since it was drawn, which both ends know how to draw."""

    def attach(self, model: nn.Module, generator: torch.Generator, *, freeze_a: bool = False) -> None:
        """As LoRA-C's; what was drawn is noted."""
        super().attach(model, generator, freeze_a=freeze_a)
        setattr(model, _DRAWN, _left_factors(model))

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """The change of A, B, and the changes of what is trained beside them."""
        drawn = getattr(model, _DRAWN)
        return {key: value - drawn[key] if key in drawn else value for key, value in super().read(model).items()}

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Factors and changes back into a network attached alike."""
        super().load(model, _added(getattr(model, _DRAWN), state))

    def relative_to_init(self) -> Adapter:
        """It is."""
        return self

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """What was drawn, added to the change of A."""
        return partial(_added, self.drawn(base, generator))


_DRAWN = "_lora_drawn"  # the attribute of the network with A as it was drawn


def _left_factors(model: nn.Module) -> dict[str, Tensor]:
    """ "<conv>.A" of an attached network whose A is trained."""
    return {key: tensor for key, tensor in lora_c.read_state(model).items() if key.endswith(".A")}


def _added(drawn: State, state: State) -> State:
    return {key: value + drawn[key] if key in drawn else value for key, value in state.items()}


@dataclass(frozen=True)
class FfaLoraC(LoraC):
    """LoRA-C whose A stays as it is drawn, the same for every camera: B alone is trained and sent (FFA-LoRA).

    Sun et al. 2024, arXiv 2403.12313. `mean(B) @ A` is the mean of the products.
    """

    linear = True

    @property
    def scale(self) -> float:
        """1: alpha / r is in the to_delta."""
        return 1.0

    def relative_to_init(self) -> Adapter:
        """B is zero at first: it is its own change."""
        return self

    def attach(self, model: nn.Module, generator: torch.Generator, *, freeze_a: bool = True) -> None:
        """As LoRA-C's, with A frozen."""
        super().attach(model, generator, freeze_a=freeze_a)

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """Beside each B, times alpha / r, the A that `attach` drew; FactorError for a state of other layers or rank."""
        return partial(_beside, self.drawn(base, generator), self.alpha / self.rank)


def _beside(drawn: State, scale: float, state: State) -> State:
    """The pairs (A, scale * B); what is dense passes."""
    for key, A in drawn.items():
        B = state.get(f"{key[:-1]}B")
        if B is None or B.shape[-1] != A.shape[-2]:
            raise FactorError(
                f"{key[:-2]!r} has a B of {A.shape[-2]} columns in this adapter, beside its A {tuple(A.shape)}; came "
                f"{None if B is None else tuple(B.shape)}. Was it trained with another rank or rank mode?"
            )
    found = {key: scale * value if f"{key[:-1]}A" in drawn else value for key, value in state.items()}
    return found | {**drawn}


@dataclass(frozen=True)
class Dense(Adapter):
    """Parameters trained as they are, see `fed_lorac.adapters.dense`; `select` names those of a network."""

    linear = True
    select: Callable[[nn.Module], Collection[str]]

    def attach(self, model: nn.Module, generator: torch.Generator) -> None:
        """The selected parameters are trained, and no other."""
        check_plain(model)  # what is selected is looked for among plain layers
        dense.attach(model, self.select(model))

    def read(self, model: nn.Module) -> dict[str, Tensor]:
        """Every trained parameter's change."""
        return dense.read_state(model)

    def load(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Every trained parameter's change, added to where it began."""
        dense.load_state(model, state)

    def detach(self, model: nn.Module) -> None:
        """Every trained parameter back to where it began."""
        dense.detach(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """A copy as it stands: nothing is beside the parameters."""
        merged = copied(model)
        dense.detach(merged, keep=True)
        return merged


def _factors(a: AdapterConfig, alpha: float, rank_mode: str, kind: type[LoraC] = LoraC) -> LoraC:
    own = a.settings("method")
    return kind(**{**own, "rank": a.ranks[0], "alpha": alpha, "rank_mode": rank_mode})


def _aad(a: AdapterConfig) -> AdditiveDecomposition:
    return AdditiveDecomposition(**a.settings("method"))


def _atoms(a: AdapterConfig) -> Atoms:
    own = a.settings("method")
    kind = partial(OvercompleteAtoms, m1=own["m1"]) if own["m1"] else Atoms
    return kind(m=own["atoms"], kc=own["kc"], train_first_conv=a.train_first_conv, train_classifier=a.train_classifier)


def _bn_affine(a: AdapterConfig) -> Dense:
    return Dense(partial(dense.norms_and_ends, first_conv=a.train_first_conv, classifier=a.train_classifier))


ADAPTERS: dict[str, Callable[[AdapterConfig], Adapter]] = {
    "lora-c": lambda a: _factors(a, a.alpha, a.settings("method")["rank_mode"]),
    "lorae": lambda a: _factors(a, float(a.ranks[0]), "filter"),  # no scale: alpha = r
    "conv-lora": lambda a: _factors(a, a.alpha, "filter"),
    "ffa-lora-c": lambda a: _factors(a, a.alpha, a.settings("method")["rank_mode"], FfaLoraC),
    "aad": _aad,
    "filter-atoms": _atoms,
    "bn-affine": _bn_affine,
    "linear-probe": lambda a: Dense(dense.probe),
    "full": lambda a: Dense(dense.everything),
}
"""adapter.method -> its maker, given the config's section."""

SOURCES = {
    "lora-c": "LoRA-C, arXiv 2410.16954",
    "lorae": "LoRAE, Low-rank adaptation for edge AI, doi 10.1038/s41598-025-16794-9",
    "conv-lora": "LoRA, arXiv 2106.09685, on convolutions as PEFT and FLoCoRA (arXiv 2406.14082) have it",
    "ffa-lora-c": "FFA-LoRA, arXiv 2403.12313, on LoRA-C",
    "aad": "FedMUD's additive decomposition, arXiv 2505.23176",
    "filter-atoms": "Large Convolutional Model Tuning via Filter Subspace, arXiv 2403.00269",
    "bn-affine": "Training BatchNorm and only BatchNorm, arXiv 2003.00152",
    "linear-probe": "Linear classifier probes, arXiv 1610.01644",
    "full": "FedAvg of every parameter, arXiv 1602.05629",
}
"""adapter.method -> where it is from."""


def adapter_of(config: AdapterConfig) -> Adapter:
    """The adapter that the config names."""
    return ADAPTERS[config.method](config)
