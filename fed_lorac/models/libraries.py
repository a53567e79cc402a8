"""Networks of other packages by name: torchvision's under their own, timm's as "timm/NAME". Knows names; not layers."""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

from torch import nn

from fed_lorac.models import timm_networks, torchvision_networks
from fed_lorac.models.published import Published

__all__ = ["Libraries"]

_MODULES = (timm_networks, torchvision_networks)


class Libraries:
    """What `fed_lorac.registry.MODELS` looks in for a name that is neither built in nor somebody else's."""

    words = 'a CNN of torchvision, such as mobilenet_v3_small, or of timm, such as "timm/resnet26"'

    @staticmethod
    def find(name: str) -> Callable[..., nn.Module] | None:
        """What makes the network: `(num_classes, stem)`; None where no library has it.

        Raises:
            ConfigError: one has it, and it is no CNN; or the package is not installed.
        """
        module = _of(name)
        return partial(module.made, name) if module else None

    @staticmethod
    def names() -> tuple[str, ...]:
        """All that may be named on this machine."""
        return tuple(name for module in _MODULES for name in module.names())

    @staticmethod
    def families() -> Iterator[tuple[str, str, str, str]]:
        """All that may be named, in words: how the names of a family begin, which they are, its source, the package."""
        return ((*row, module.PACKAGE) for module in reversed(_MODULES) for row in module.families())

    @staticmethod
    def published(name: str) -> Published | None:
        """Where a network's ImageNet weights are; None where no library has it."""
        module = _of(name)
        found: Published | None = module.published(name) if module else None
        return found


def _of(name: str) -> ModuleType | None:
    return next((module for module in _MODULES if module.has(name)), None)
