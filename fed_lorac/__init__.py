"""fed-lorac: a federated fleet-adaptation simulator that measures every byte."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fed-lorac")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
