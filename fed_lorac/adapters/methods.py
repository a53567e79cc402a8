"""What a camera trains, by name. Knows which methods there are; not what is in them."""

from dataclasses import fields
from typing import Any

from fed_lorac.adapters.aad import AdditiveDecomposition
from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.bn_affine import BnAffine
from fed_lorac.adapters.conv_lora import ConvLora
from fed_lorac.adapters.ffa_lora_c import FfaLoraC
from fed_lorac.adapters.filter_atoms import FilterAtoms
from fed_lorac.adapters.full import FullFineTuning
from fed_lorac.adapters.linear_probe import LinearProbe
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.lorae import Lorae
from fed_lorac.config import AdapterConfig

__all__ = ["ADAPTERS", "adapter_of"]

ADAPTERS: dict[str, type[Adapter]] = {
    "lora-c": LoraC,
    "lorae": Lorae,
    "conv-lora": ConvLora,
    "lora-c-ffa": FfaLoraC,
    "aad": AdditiveDecomposition,
    "filter-atoms": FilterAtoms,
    "bn-affine": BnAffine,
    "linear-probe": LinearProbe,
    "full": FullFineTuning,
}
"""adapter.method -> its class."""

_ALIASES = {"m1": "atoms_m1", "kc": "atoms_kc"}


def adapter_of(config: AdapterConfig) -> Adapter:
    """The adapter that the config names: its settings are those of the section that its class has."""
    kind: Any = ADAPTERS[config.method]
    own = [f.name for f in fields(kind) if "rule" in f.metadata]
    return kind(**{name: getattr(config, _ALIASES.get(name, name)) for name in own})  # type: ignore[no-any-return]
