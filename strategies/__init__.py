"""What a server makes of a round's deltas: one published method a file, each a value that `FrameStrategy` drives.

This folder is the package `fed_lorac.strategies`. In a checkout it is `strategies` too: the same modules by a shorter
name (docs/decisions/0002-where-strategies-live.md).
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .clustered import ClusteredFedAvg
    from .factor_fedavg import FactorFedAvg
    from .fedavg import FedAvg
    from .flexlora import FlexLora
    from .flora import Flora
    from .local_only import LocalOnly
    from .merged import MergedFedAvg
    from .rotating_basis import RotatingBasis
    from .zero_byte import ZeroByte
    from .zeroth_order import ZerothOrder

__all__ = [
    "ClusteredFedAvg",
    "FactorFedAvg",
    "FedAvg",
    "FlexLora",
    "Flora",
    "LocalOnly",
    "MergedFedAvg",
    "RotatingBasis",
    "ZeroByte",
    "ZerothOrder",
]

# Class -> its file. A file is imported when its class is first asked for.
_FILE_OF = {
    "ClusteredFedAvg": "clustered",
    "FactorFedAvg": "factor_fedavg",
    "FedAvg": "fedavg",
    "FlexLora": "flexlora",
    "Flora": "flora",
    "LocalOnly": "local_only",
    "MergedFedAvg": "merged",
    "RotatingBasis": "rotating_basis",
    "ZeroByte": "zero_byte",
    "ZerothOrder": "zeroth_order",
}


def __getattr__(name: str) -> object:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if __name__ == "strategies":  # a class must exist once, whatever name it is imported by
    for _file in sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py")):
        sys.modules[f"strategies.{_file}"] = import_module(f"fed_lorac.strategies.{_file}")
    sys.modules["strategies"] = import_module("fed_lorac.strategies")
