"""Every method by name, as the text "module:Name" of its class. Knows text and how to import; no method itself.

A built-in method is its file and one line here. A method of another package is named by an entry point of the group
that stands beside each table, or as "module:Name" itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from fed_lorac.errors import ConfigError

__all__ = ["ADAPTERS", "AGGREGATORS", "SERVER_OPTIMIZERS", "STRATEGIES", "Kind", "load"]


@dataclass(frozen=True)
class Kind:
    """What may be named: its built-in names, each with its "module:Name", and the group of others' entry points."""

    built_in: Mapping[str, str | type]
    group: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The built-in names."""
        return tuple(self.built_in)

    def find(self, name: str) -> str | type | None:
        """What a name stands for: a built-in class, an installed package's "module:Name", or itself; None: nothing."""
        if name in self.built_in:
            return self.built_in[name]
        if not self.group:
            return None
        return name if ":" in name else _installed(self.group).get(name)

    def is_outside(self, name: str) -> bool:
        """Whether a name is somebody else's: an entry point or "module:Name"."""
        return name not in self.built_in and self.find(name) is not None

    def load(self, name: str) -> Any:
        """The class that a name stands for. Raises `ConfigError` where there is none."""
        if (found := self.find(name)) is None:
            others = f', an entry point of the group {self.group}, or "module:Name"' if self.group else ""
            raise ConfigError(f"A name must be one of {', '.join(self.built_in)}{others}; got {name!r}.")
        return found if isinstance(found, type) else load(found)


@cache
def load(reference: str) -> Any:
    """What "module:Name" names. Raises `ConfigError` where it cannot be imported."""
    module, _, name = reference.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f'"module:Name" must name what can be imported; {reference!r}: {error}. Check the spelling, and that its '
            "package is installed on every machine of the run."
        ) from error
    return found


@cache
def _installed(group: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=group)}


ADAPTERS = Kind(
    {
        "lora-c": "fed_lorac.adapters.lora_c:LoraC",
        "lorae": "fed_lorac.adapters.lorae:Lorae",
        "conv-lora": "fed_lorac.adapters.conv_lora:ConvLora",
        "ffa-lora-c": "fed_lorac.adapters.ffa_lora_c:FfaLoraC",
        "aad": "fed_lorac.adapters.aad:AdditiveDecomposition",
        "filter-atoms": "fed_lorac.adapters.filter_atoms:FilterAtoms",
        "bn-affine": "fed_lorac.adapters.bn_affine:BnAffine",
        "linear-probe": "fed_lorac.adapters.linear_probe:LinearProbe",
        "full": "fed_lorac.adapters.full:FullFineTuning",
    },
    "fed_lorac.adapters",
)

STRATEGIES = Kind(
    {
        "merged": "fed_lorac.strategies:MergedFedAvg",
        "fedavg": "fed_lorac.strategies:FedAvg",
        "factor-fedavg": "fed_lorac.strategies:FactorFedAvg",
        "flora": "fed_lorac.strategies:Flora",
        "flexlora": "fed_lorac.strategies:FlexLora",
        "rotating-basis": "fed_lorac.strategies:RotatingBasis",
        "clustered": "fed_lorac.strategies:ClusteredFedAvg",
        "local-only": "fed_lorac.strategies:LocalOnly",
        "zero-byte": "fed_lorac.strategies:ZeroByte",
    },
    "fed_lorac.strategies",
)

AGGREGATORS = Kind(
    {
        "mean": "fed_lorac.aggregation.aggregators:Mean",
        "clipped": "fed_lorac.aggregation.aggregators:ClippedMean",
        "median": "fed_lorac.aggregation.aggregators:Median",
        "trimmed": "fed_lorac.aggregation.aggregators:TrimmedMean",
        "krum": "fed_lorac.aggregation.aggregators:Krum",
    },
)

SERVER_OPTIMIZERS = Kind(
    {
        "sgd": "fed_lorac.aggregation.server_optimizers:Sgd",
        "momentum": "fed_lorac.aggregation.server_optimizers:Momentum",
        "adam": "fed_lorac.aggregation.server_optimizers:Adam",
        "yogi": "fed_lorac.aggregation.server_optimizers:Yogi",
    },
)
