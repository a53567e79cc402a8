"""Everything that a config can name, as the text "module:Name" of what it stands for. Knows text and how to import; no
method itself.

A built-in part is its file and one line here. A part of another package is named by an entry point of the group that
stands beside each table, or as "module:Name" itself.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, invalidate_caches
from importlib.metadata import entry_points
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

from fed_lorac.errors import ConfigError, FedLoracError, one_line
from fed_lorac.runtime.near import did_you_mean
from fed_lorac.runtime.settings import Rule, rules_of, settings_of
from fed_lorac.runtime.source import package_identity

__all__ = [
    "ADAPTERS",
    "AGGREGATORS",
    "CODECS",
    "CORRUPTIONS",
    "DATASETS",
    "LINKS",
    "MODELS",
    "SERVER_OPTIMIZERS",
    "STRATEGIES",
    "Kind",
    "load",
]


@dataclass(frozen=True)
class Kind:
    """What may be named: its built-in names, each with its "module:Name", and the group of others' entry points.

    `contract` says in words what somebody else's must be: a class that extends `base`, a value of it, or a function.
    `given`: parameters that a function is always called with, and that are no settings therefore. `declared`: the
    classes that declare the settings of built-in ones; None: each declares its own.
    """

    built_in: Mapping[str, str | type]
    group: str = ""
    form: Literal["class", "value", "function"] = "class"
    contract: str = ""
    base: str = ""
    given: tuple[str, ...] = ()
    declared: Mapping[str, type] | None = field(default=None, kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The built-in names."""
        return tuple(self.built_in)

    def installed(self) -> Mapping[str, str]:
        """Name -> "module:Name" of what installed packages register. Raises `ConfigError` where a name is taken."""
        return _installed(self.group, self.names) if self.group else {}

    def find(self, name: str) -> str | type | None:
        """What a name stands for: a built-in class, an installed package's "module:Name", or itself; None: nothing."""
        if name in self.built_in:
            return self.built_in[name]
        if not self.group:
            return None
        return name if ":" in name else self.installed().get(name)

    def is_outside(self, name: str) -> bool:
        """Whether a name is somebody else's: an entry point or "module:Name"."""
        return name not in self.built_in and self.find(name) is not None

    def load(self, name: str) -> Any:
        """What a name stands for, imported. Raises `ConfigError` where there is none, or it keeps no contract."""
        if (found := self.find(name)) is None:
            raise ConfigError(
                f"A name must be one of {', '.join(self.built_in)}{self.others}; got {name!r}."
                f"{did_you_mean(name, (*self.built_in, *self.installed()))}"
            )
        if isinstance(found, type):
            return found
        loaded = load(found)
        if self.is_outside(name) and not self._keeps_contract(loaded):
            raise self.broken(name, f"{found} is {type(loaded).__name__} {loaded!r:.80}")
        return loaded

    @property
    def others(self) -> str:
        """What a name may be besides a built-in one, in words."""
        return f', an entry point of the group {self.group}, or "module:Name"' if self.group else ""

    def broken(self, name: str, what: str) -> ConfigError:
        """What is said of somebody else's part that keeps no contract."""
        return ConfigError(
            f"{self.contract[:1].upper()}{self.contract[1:]}; {name!r} is not: {what}. Mend it: see docs/extending.md."
        )

    def make(self, name: str, **settings: Any) -> Any:
        """What a name stands for, called with its settings; or itself, where it is a value."""
        found = self.load(name)
        if not self.is_outside(name):
            return found(**settings) if callable(found) else found
        try:
            made = found(**settings) if callable(found) else found
        except FedLoracError:
            raise
        except Exception as error:
            raise self.broken(name, f"it cannot be built with {settings}: {one_line(error)}") from error
        if self.form == "value" and not isinstance(made, load(self.base)):
            raise self.broken(name, f"it gives {type(made).__name__}")
        return made

    def rules(self, name: str) -> dict[str, Rule]:
        """The settings that a name brings: field or parameter -> rule. None, where a name stands for nothing."""
        if self.is_outside(name):
            return {key: rule for key, rule in settings_of(self.load(name)).items() if key not in self.given}
        if self.declared is not None:
            return rules_of(self.declared[name]) if name in self.declared else {}
        return rules_of(self.load(name)) if name in self.built_in else {}

    def declares(self, name: str) -> Any:
        """What declares the settings of a name; None: nothing does."""
        if self.declared is not None and name in self.built_in:
            return self.declared.get(name)
        return self.load(name) if self.find(name) else None

    def identity(self, name: str) -> str:
        """Which code somebody else's part is made of: its reference, the version of its package and a hash of its
        source. Without a source, as of what a notebook defines, the reference alone, which ends in a question mark."""
        reference = str(self.find(name))
        self.load(name)
        return f"{reference} {package_identity(reference.partition(':')[0]) or '?'}"

    def _keeps_contract(self, found: Any) -> bool:
        if self.form == "function":
            return callable(found)
        base = load(self.base)
        if self.form == "class":
            return isinstance(found, type) and issubclass(found, base)
        return isinstance(found, base) or callable(found)


@cache
def load(reference: str) -> Any:
    """What "module:Name" names; its module is looked for in the current folder too.

    Raises:
        ConfigError: it cannot be imported here.
    """
    module, _, name = reference.partition(":")
    try:
        found: Any = _imported(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigError(
            f'"module:Name" must name what can be imported; {reference!r} cannot be on {gethostname()}: '
            f"{one_line(error)}. Check the spelling, and that its package is installed on every machine of the run."
        ) from error
    return found


def _imported(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        if (here := str(Path.cwd())) in sys.path:
            raise
        sys.path.append(here)  # the command's own path has its folder, and not the one that it is called in
        invalidate_caches()
        return import_module(module)


@cache
def _installed(group: str, built_in: tuple[str, ...]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for point in entry_points(group=group):
        whose = point.dist.name if point.dist else "a package"
        if point.name in built_in or found.get(point.name, point.value) != point.value:
            raise ConfigError(
                f"A name stands for one thing; {whose} registers {point.name!r} in {group}, which "
                f"{'is built in' if point.name in built_in else f'{found[point.name]} has already'}. Rename or "
                "uninstall it."
            )
        found[point.name] = point.value
    return found


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
    "class",
    "an adapter of your own is a class that extends fed_lorac.adapters.adapter.Adapter, or one of its kinds",
    "fed_lorac.adapters.adapter:Adapter",
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
    "class",
    "a strategy of your own is a class that extends fed_lorac.server.strategy.Strategy",
    "fed_lorac.server.strategy:Traits",
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

MODELS = Kind(
    {
        "resnet8": "fed_lorac.models.cifar_resnet:resnet8",
        "resnet14": "fed_lorac.models.cifar_resnet:resnet14",
        "resnet20": "fed_lorac.models.cifar_resnet:resnet20",
        "resnet32": "fed_lorac.models.cifar_resnet:resnet32",
        "resnet56": "fed_lorac.models.cifar_resnet:resnet56",
        "resnet18": "fed_lorac.models.torchvision_resnet:resnet18",
        "resnet34": "fed_lorac.models.torchvision_resnet:resnet34",
        "resnet50": "fed_lorac.models.torchvision_resnet:resnet50",
        "resnet101": "fed_lorac.models.torchvision_resnet:resnet101",
    },
    "fed_lorac.models",
    "function",
    "a model of your own is called as (num_classes, **settings) and gives an nn.Module for images (N, 3, H, W)",
    given=("num_classes",),
)

DATASETS = Kind(
    {
        "cifar10": "fed_lorac.data.datasets:cifar10",
        "cifar100": "fed_lorac.data.datasets:cifar100",
        "folder": "fed_lorac.data.datasets:folder",
        "digits": "fed_lorac.data.datasets:digits",
        "cifar10c": "fed_lorac.data.datasets:cifar10c",
    },
    "fed_lorac.datasets",
    "function",
    "a data set of your own is called as (root, image_size, **settings) and gives fed_lorac.data.dataset.Images",
    given=("root", "image_size"),
)

# CIFAR-10-C's nineteen (Hendrycks & Dietterich 2019, arXiv 1903.12261), the four extra ones last.
CORRUPTIONS = Kind(
    {
        "gaussian_noise": "fed_lorac.data.corruptions.noise:gaussian_noise",
        "shot_noise": "fed_lorac.data.corruptions.noise:shot_noise",
        "impulse_noise": "fed_lorac.data.corruptions.noise:impulse_noise",
        "defocus_blur": "fed_lorac.data.corruptions.blur:defocus_blur",
        "glass_blur": "fed_lorac.data.corruptions.blur:glass_blur",
        "motion_blur": "fed_lorac.data.corruptions.blur:motion_blur",
        "zoom_blur": "fed_lorac.data.corruptions.blur:zoom_blur",
        "snow": "fed_lorac.data.corruptions.weather:snow",
        "frost": "fed_lorac.data.corruptions.weather:frost",
        "fog": "fed_lorac.data.corruptions.weather:fog",
        "brightness": "fed_lorac.data.corruptions.weather:brightness",
        "contrast": "fed_lorac.data.corruptions.digital:contrast",
        "elastic_transform": "fed_lorac.data.corruptions.digital:elastic_transform",
        "pixelate": "fed_lorac.data.corruptions.digital:pixelate",
        "jpeg_compression": "fed_lorac.data.corruptions.digital:jpeg_compression",
        "speckle_noise": "fed_lorac.data.corruptions.noise:speckle_noise",
        "gaussian_blur": "fed_lorac.data.corruptions.blur:gaussian_blur",
        "spatter": "fed_lorac.data.corruptions.weather:spatter",
        "saturate": "fed_lorac.data.corruptions.digital:saturate",
    },
    "fed_lorac.corruptions",
    "function",
    "a corruption of your own is called as (images, severity, rng, **settings) and gives images, uint8 (N, H, W, 3)",
    given=("images", "severity", "rng"),
)

CODECS = Kind(
    {
        "fp32": "fed_lorac.wire.codecs.codecs:FP32",
        "fp16": "fed_lorac.wire.codecs.codecs:FP16",
        "bf16": "fed_lorac.wire.codecs.codecs:BF16",
        "int8": "fed_lorac.wire.codecs.codecs:INT8",
        "int4": "fed_lorac.wire.codecs.codecs:INT4",
        "drive": "fed_lorac.wire.codecs.codecs:DRIVE",
        "topk": "fed_lorac.wire.codecs.codecs:TOPK",
    },
    "fed_lorac.codecs",
    "value",
    "a codec of your own is a fed_lorac.wire.codecs.codecs.Codec with a code from 128 to 255, or gives one",
    "fed_lorac.wire.codecs.codecs:Codec",
)

LINKS = Kind(
    {
        "lorawan-dr0": "fed_lorac.fleet.links:LORAWAN_DR0",
        "lorawan-dr1": "fed_lorac.fleet.links:LORAWAN_DR1",
        "lorawan-dr2": "fed_lorac.fleet.links:LORAWAN_DR2",
        "lorawan-dr3": "fed_lorac.fleet.links:LORAWAN_DR3",
        "lorawan-dr4": "fed_lorac.fleet.links:LORAWAN_DR4",
        "lorawan-dr5": "fed_lorac.fleet.links:LORAWAN_DR5",
        "nb-iot-nb1": "fed_lorac.fleet.links:NB_IOT_NB1",
        "nb-iot-nb2": "fed_lorac.fleet.links:NB_IOT_NB2",
        "lte-m": "fed_lorac.fleet.links:LTE_M",
        "lte-cat-1": "fed_lorac.fleet.links:LTE_CAT_1",
        "4g": "fed_lorac.fleet.links:LTE_4G",
    },
    "fed_lorac.links",
    "value",
    "a link of your own is a fed_lorac.fleet.links.Link, or gives one",
    "fed_lorac.fleet.links:Link",
)
