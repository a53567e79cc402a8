"""Which versions of packages are installed: beside its config, they decide a run's last bits. Knows packages."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from fed_lorac import __version__

__all__ = ["version_of", "versions"]

_DECISIVE = ("flwr", "ray", "torch", "torchvision", "numpy", "flwr-datasets", "safetensors")


def version_of(package: str) -> str:
    """The installed version of a distribution; empty: there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def versions(packages: Iterable[str] = _DECISIVE) -> dict[str, str]:
    """Python's version, this package's, and those of these distributions; by default those that decide results."""
    found = {"fed-lorac": __version__, "python": platform.python_version()}
    return found | {package: version_of(package) or "not installed" for package in packages}
