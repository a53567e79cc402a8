"""filter-atoms: only the atoms that a convolution's kernels are sums of are trained. Knows networks; no cameras, rounds
or frames.

"Large Convolutional Model Tuning via Filter Subspace", arXiv 2403.00269. Every convolution but the first is decomposed
(`algebra.atoms`): its coefficients alpha stay, and what is trained and sent is the delta of its atoms, a few hundred
numbers a network. The weight itself stays as it is and gains alpha x delta D, so that what the decomposition misses is
missed by the delta alone, never by the network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self, cast

import torch
from torch import Tensor, nn

from fed_lorac.adapters.algebra.atoms import (
    Code,
    decompose,
    delta,
    delta_by_channel,
    from_kernels,
    init_combination,
    is_pointwise,
    overall_error,
    to_kernels,
)
from fed_lorac.adapters.conv_adapter import AdaptedConv2d, Branch, ConvAdapter
from fed_lorac.errors import FactorError
from fed_lorac.runtime.settings import setting
from fed_lorac.seeds import torch_stream

__all__ = ["AtomsConv2d", "FilterAtoms"]


class AtomsConv2d(AdaptedConv2d):
    """A convolution that gains alpha x delta D: `alpha` (out, in, m) frozen; `D` (m, K_h, K_w), `Dc` (m, kc, kc) for a
    regrouped 1x1 convolution, or `alpha1` (in, m, m1) and `D1` (m, m1, K_h, K_w) trained. `in` is the weight's."""

    def delta(self, own: Mapping[str, Tensor]) -> Tensor:
        """alpha x delta D, (..., out, in, K_h, K_w)."""
        if "D1" in own:
            return delta_by_channel(own["alpha"], own["alpha1"], own["D1"])
        return from_kernels(delta(own["alpha"], own["D" if "D" in own else "Dc"]), own["weight"].shape[-4:])


@dataclass(frozen=True, kw_only=True)
class FilterAtoms(ConvAdapter):
    """Each kernel as a sum of a few atoms that all kernels share; only the atoms are trained.

    alpha is that of the starting base; delta D is zero at first. State: "<conv>.D" (m, K_h, K_w), for a regrouped 1x1
    convolution "<conv>.Dc" (m, kc, kc). As alpha is the same for all cameras and rounds, the delta is linear in the
    state.

    With m1 the overcomplete form: delta D = alpha1 x D1 for every channel in, alpha1 drawn, D1 zero at first, both
    trained. State: "<conv>.alpha1" (in, m, m1) and "<conv>.D1" (m, m1, K_h, K_w), as in the authors' release: each of
    the m atoms is combined from m1 of its own, which all channels share. A regrouped 1x1 convolution has "<conv>.Dc"
    still.
    """

    source = "Large Convolutional Model Tuning via Filter Subspace, arXiv 2403.00269"
    found_lr = 0.03
    layer = AtomsConv2d

    atoms: int = setting(9, "filter atoms of a convolution; the paper uses 6, 9 and 12", least=1)
    m1: int = setting(0, "atoms that each atom is composed of; 0: it is not; the paper uses 3 to 6", least=0)
    kc: int = setting(
        4, "side of the kernels that a 1x1 convolution's channels are regrouped into; 0: not adapted", least=0
    )
    codes: Mapping[str, Code] | None = field(default=None, compare=False, repr=False)  # by convolution, once fitted

    @property
    def linear(self) -> bool:
        """alpha x delta D is; alpha1 x D1 is bilinear."""
        return not self.m1

    @property
    def draws_anew(self) -> bool:
        """alpha1 is drawn, and trained."""
        return bool(self.m1)

    @property
    def formula(self) -> str:
        """D and Dc, or alpha1 and D1."""
        each = "m m1 (in + K²)" if self.m1 else "m K²"
        return f"Σ {each} (K = 1: m kc²) + ends"

    @property
    def reconstruction(self) -> dict[str, float]:
        """||W - alpha x D|| / ||W|| of each convolution of the base that this was fitted to."""
        return {name: code.error for name, code in self._known().items()}

    @property
    def reconstruction_error(self) -> float:
        """The same of all these convolutions together, as one long vector."""
        return overall_error(list(self._known().values()))

    def fit_to(self, base: nn.Module) -> Self:
        """This adapter with the codes of a base's convolutions; FactorError for one that cannot be decomposed.

        Atoms beyond K*K come from a stream of the convolution's name alone: both ends draw the same ones.
        """
        if self.codes is not None:
            return self
        kernels = {
            name: to_kernels(_weight(base, name), self.kc, name, _groups(base, name))
            for name in self.convolutions(base)
        }
        codes = {n: decompose(own, self.atoms, torch_stream(0, "filter-atoms", n)) for n, own in kernels.items()}
        return super(FilterAtoms, replace(self, codes=codes)).fit_to(base)

    def convolutions(self, model: nn.Module) -> tuple[str, ...]:
        """Every convolution but the first; where kc is 0, no 1x1 convolution."""
        names = super().convolutions(model)
        own = names if self.kc else tuple(name for name in names if not is_pointwise(_weight(model, name).shape))
        if self.codes is not None and own != tuple(self.codes):
            raise FactorError(
                f"Atoms go on the convolutions that were decomposed, {len(self.codes)} from "
                f"{next(iter(self.codes), None)!r} on; came a network of {len(own)}. Is it another model? Fit the "
                "adapter to a network of its kind."
            )
        return own

    def branch(self, name: str, conv: nn.Conv2d, generator: torch.Generator) -> Branch:
        """alpha, and delta D = 0; in the overcomplete form alpha1 drawn."""
        code = self._known()[name]
        if is_pointwise(conv.weight.shape):
            return Branch({"Dc": torch.zeros_like(code.atoms)}, {"alpha": code.alpha})
        if not self.m1:
            return Branch({"D": torch.zeros_like(code.atoms)}, {"alpha": code.alpha})
        m, *kernel = code.atoms.shape
        alpha1, D1 = init_combination(code.alpha.shape[1], m, self.m1, kernel, generator)
        return Branch({"alpha1": alpha1, "D1": D1}, {"alpha": code.alpha})

    def _known(self) -> Mapping[str, Code]:
        if self.codes is None:
            raise FactorError(
                "A reconstruction is of a base, and none was decomposed yet. Ask FilterAtoms.fit_to(base)."
            )
        return self.codes


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight").detach()


def _groups(model: nn.Module, name: str) -> int:
    return cast(nn.Conv2d, model.get_submodule(name)).groups
