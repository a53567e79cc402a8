"""Filter atoms on a network: only the atoms that its kernels are sums of are trained. Knows networks; no cameras,
rounds or frames.

Every convolution but the first is decomposed (`atoms`): its coefficients alpha stay, and what is trained and sent is
the change of its atoms, a few hundred numbers a network. The weight itself stays as it is and gains alpha x delta D, so
that what the decomposition misses is missed by the change alone, never by the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import ToDelta
from fed_lorac.adapters.algebra.atoms import (
    Code,
    decompose,
    delta,
    delta_by_channel,
    from_kernels,
    init_combination,
    overall_error,
    to_kernels,
)
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, BranchStart, ConvAdapter
from fed_lorac.adapters.deltas import State
from fed_lorac.errors import FactorError
from fed_lorac.seeds import torch_stream

__all__ = ["Atoms", "AtomsConv2d", "OvercompleteAtoms"]


class AtomsConv2d(AdaptedConv2d):
    """A convolution that gains alpha x delta D: `alpha` (out, in, m) frozen; `D` (m, K, K), `Dc` (m, kc, kc) for a
    regrouped 1x1 convolution, or `alpha1` (in, m, m1) and `D1` (m, m1, K, K) trained."""

    def change(self, own: Mapping[str, Tensor]) -> Tensor:
        """alpha x delta D, (..., out, in, K, K)."""
        return _change(own["alpha"], own, own["weight"].shape[-4:])


def _change(alpha: Tensor, trained: Mapping[str, Tensor], weight_shape: torch.Size) -> Tensor:
    if "D1" in trained:
        return delta_by_channel(alpha, trained["alpha1"], trained["D1"])
    return from_kernels(delta(alpha, trained["D" if "D" in trained else "Dc"]), weight_shape)


@dataclass(frozen=True, kw_only=True)
class Atoms(ConvAdapter):
    """Filter atoms (arXiv 2403.00269): alpha of the starting base, delta D zero at first and trained.

    State: "<conv>.D" (m, K, K), for a regrouped 1x1 convolution "<conv>.Dc" (m, kc, kc). As alpha is the same for all
    cameras and rounds, the change is linear in the state.
    """

    linear = True
    kind = AtomsConv2d
    m: int  # atoms a convolution
    kc: int  # channels of a 1x1 convolution that are regrouped to a kernel's side; 0: it carries nothing
    codes: Mapping[str, Code] | None = field(default=None, compare=False, repr=False)  # by convolution, once fitted

    @property
    def reconstruction(self) -> dict[str, float]:
        """||W - alpha x D|| / ||W|| of each convolution of the base that this was fitted to."""
        return {name: code.error for name, code in self._known().items()}

    @property
    def reconstruction_error(self) -> float:
        """The same of all these convolutions together, as one long vector."""
        return overall_error(list(self._known().values()))

    def fit_to(self, base: nn.Module) -> Self:
        """This adapter with the codes of a base's convolutions; FactorError for one that cannot be decomposed."""
        return replace(self, codes=self._decomposed(base))

    def convolutions(self, model: nn.Module) -> tuple[str, ...]:
        """Every convolution but the first; where kc is 0, no 1x1 convolution."""
        names = super().convolutions(model)
        return names if self.kc else tuple(name for name in names if not _is_pointwise(model, name))

    def starts(self, model: nn.Module, generator: torch.Generator) -> dict[str, BranchStart]:
        """alpha, and delta D = 0; an adapter that was not fitted decomposes this very network."""
        return {
            name: BranchStart(self._zero(code, _is_pointwise(model, name), generator), {"alpha": code.alpha})
            for name, code in self._codes_of(model).items()
        }

    def to_delta(self, base: nn.Module, generator: torch.Generator) -> ToDelta:
        """Atoms' changes as dense ones, alpha x delta D, what is dense passes; an adapter that was not fitted
        decomposes this base. FactorError where a state has other atoms than the base's."""
        starts = self.starts(base, generator)
        shapes = {name: _weight(base, name).shape for name in starts}
        return lambda state: _to_delta(state, starts, shapes)

    def _zero(self, code: Code, pointwise: bool, generator: torch.Generator) -> dict[str, Tensor]:
        return {"Dc" if pointwise else "D": torch.zeros_like(code.atoms)}

    def _codes_of(self, model: nn.Module) -> Mapping[str, Code]:
        codes = self._decomposed(model) if self.codes is None else self.codes
        if (own := self.convolutions(model)) != tuple(codes):
            raise FactorError(
                f"Atoms go on the convolutions that were decomposed, {len(codes)} from {next(iter(codes), None)!r} on; "
                f"came a network of {len(own)}. Is it another model? Prepare the adapter with a network of its kind."
            )
        return codes

    def _decomposed(self, base: nn.Module) -> dict[str, Code]:
        """Atoms beyond K*K come from a stream of the convolution's name alone: both ends draw the same ones."""
        kernels = {name: to_kernels(_weight(base, name), self.kc, name) for name in self.convolutions(base)}
        return {name: decompose(own, self.m, torch_stream(0, "filter-atoms", name)) for name, own in kernels.items()}

    def _known(self) -> Mapping[str, Code]:
        if self.codes is None:
            raise FactorError("A reconstruction is of a base, and none was decomposed yet. Ask Atoms.fit_to(base).")
        return self.codes


@dataclass(frozen=True, kw_only=True)
class OvercompleteAtoms(Atoms):
    """The overcomplete form: delta D = alpha1 x D1 for every channel in, alpha1 drawn, D1 zero at first, both trained.

    State: "<conv>.alpha1" (in, m, m1) and "<conv>.D1" (m, m1, K, K), as in the authors' release: each of the m atoms is
    combined from m1 of its own, which all channels share. A regrouped 1x1 convolution has "<conv>.Dc" as before.
    """

    linear = False  # alpha1 x D1 is bilinear
    m1: int  # atoms that each atom is combined from

    def _zero(self, code: Code, pointwise: bool, generator: torch.Generator) -> dict[str, Tensor]:
        if pointwise:
            return super()._zero(code, pointwise, generator)
        m, k, _ = code.atoms.shape
        alpha1, D1 = init_combination(code.alpha.shape[1], m, self.m1, k, generator)
        return {"alpha1": alpha1, "D1": D1}


def _to_delta(state: State, starts: Mapping[str, BranchStart], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    trained = {f"{name}.{key}" for name, start in starts.items() for key in start.trained}
    change = {key: tensor for key, tensor in state.items() if key not in trained}
    for name, start in starts.items():
        own = {key: state[f"{name}.{key}"] for key in start.trained if f"{name}.{key}" in state}
        came, expected = ({key: tuple(t.shape) for key, t in these.items()} for these in (own, start.trained))
        if came != expected:
            raise FactorError(
                f"{name!r} has {expected} in this adapter; came {came or 'none of it'}. Has it other atoms' settings?"
            )
        alpha = start.frozen["alpha"].to(next(iter(own.values())))
        change[f"{name}.weight"] = _change(alpha, own, shapes[name])
    return change


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight").detach()


def _is_pointwise(model: nn.Module, name: str) -> bool:
    return _weight(model, name).shape[-1] == 1
