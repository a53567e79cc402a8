"""Where `strategies/` is in a checkout: beside `fed_lorac/`. A wheel has that folder here, in place of this file.

Knows where the folder is; not what is in it.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strategies import *  # noqa: F403  (a type checker sees the same classes)

_CHECKOUT = Path(__file__).resolve().parents[1]
_spec = PathFinder.find_spec(__name__, [str(_CHECKOUT)])
if _spec is None or _spec.loader is None:
    raise ImportError(f"In a checkout strategies/ stands beside fed_lorac/; there is none in {_CHECKOUT}. Restore it.")
sys.modules[__name__] = module_from_spec(_spec)  # the import system hands out what stands here
_spec.loader.exec_module(sys.modules[__name__])
