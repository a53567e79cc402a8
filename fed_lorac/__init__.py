"""fed-lorac: a federated fleet-adaptation simulator that measures every byte.

    import fed_lorac as fl

    run = fl.run("quickstart", {"run.rounds": 3})
    run.rounds, run.cameras      # data frames
    run.model(camera=0)          # a network for pixels

Every name is imported when it is first used: `import fed_lorac` itself costs no PyTorch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from fed_lorac.errors import ConfigError, DataError, FactorError, FedLoracError, FrameError, RunError

if TYPE_CHECKING:
    from fed_lorac.adapters import lora_c
    from fed_lorac.adapters.adapter import Adapter
    from fed_lorac.api.catalogue import methods
    from fed_lorac.api.fleet import show_fleet
    from fed_lorac.api.plan import plan
    from fed_lorac.api.result import Run, load_run
    from fed_lorac.api.start import run
    from fed_lorac.config import Config, load_config, shipped_configs
    from fed_lorac.data.corruptions import corrupt
    from fed_lorac.export import export_run, load_adapter, load_network
    from fed_lorac.pages.report import report
    from fed_lorac.reporting.compare import compare
    from fed_lorac.server.frame_strategy import FrameStrategy
    from fed_lorac.server.strategy import Strategy
    from fed_lorac.studies.result import StudyResult, load_study
    from fed_lorac.studies.start import study
    from fed_lorac.wire.frame import decode, encode

try:
    __version__ = version("fed-lorac")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0.0.0"

__all__ = [
    "Adapter",
    "Config",
    "ConfigError",
    "DataError",
    "FactorError",
    "FedLoracError",
    "FrameError",
    "FrameStrategy",
    "Run",
    "RunError",
    "Strategy",
    "StudyResult",
    "__version__",
    "compare",
    "corrupt",
    "decode",
    "encode",
    "export_run",
    "load_adapter",
    "load_config",
    "load_network",
    "load_run",
    "load_study",
    "lora_c",
    "methods",
    "plan",
    "report",
    "run",
    "shipped_configs",
    "show_fleet",
    "study",
]

_FOUND_IN = {
    "Adapter": "fed_lorac.adapters.adapter:Adapter",
    "Config": "fed_lorac.config:Config",
    "FrameStrategy": "fed_lorac.server.frame_strategy:FrameStrategy",
    "Run": "fed_lorac.api.result:Run",
    "Strategy": "fed_lorac.server.strategy:Strategy",
    "StudyResult": "fed_lorac.studies.result:StudyResult",
    "compare": "fed_lorac.reporting.compare:compare",
    "corrupt": "fed_lorac.data.corruptions:corrupt",
    "decode": "fed_lorac.wire.frame:decode",
    "encode": "fed_lorac.wire.frame:encode",
    "export_run": "fed_lorac.export:export_run",
    "load_adapter": "fed_lorac.export:load_adapter",
    "load_config": "fed_lorac.config:load_config",
    "load_network": "fed_lorac.export:load_network",
    "load_run": "fed_lorac.api.result:load_run",
    "load_study": "fed_lorac.studies.result:load_study",
    "lora_c": "fed_lorac.adapters.lora_c",
    "methods": "fed_lorac.api.catalogue:methods",
    "plan": "fed_lorac.api.plan:plan",
    "report": "fed_lorac.pages.report:report",
    "run": "fed_lorac.api.start:run",
    "shipped_configs": "fed_lorac.config:shipped_configs",
    "show_fleet": "fed_lorac.api.fleet:show_fleet",
    "study": "fed_lorac.studies.start:study",
}
"""Name -> the module, and what it is called there. Equal to the imports above, which are for type checkers."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _FOUND_IN:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        place, _, attribute = _FOUND_IN[name].partition(":")
        module = import_module(place)
        globals()[name] = found = getattr(module, attribute) if attribute else module
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
