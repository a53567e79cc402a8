"""Where somebody else's strategy breaks its contract: an error that names it. Knows strategies; not messages."""

from collections.abc import Collection

from fed_lorac.errors import ConfigError, FedLoracError, one_line
from fed_lorac.registry import STRATEGIES
from fed_lorac.server.strategy import Strategy

__all__ = ["check_update", "fault_of"]


def fault_of(flower_strategy: object, round: int, error: Exception) -> Exception:
    """The error to raise where one came up in a round: one that names the strategy, where it is somebody else's, and
    nobody has said yet whose fault it is; else the same."""
    strategy = getattr(flower_strategy, "strategy", None)  # what a `FrameStrategy` runs
    if isinstance(error, FedLoracError) or not isinstance(strategy, Strategy) or _is_shipped(strategy):
        return error
    return _broken(strategy, f"in round {round} it fails with {one_line(error)}")


def check_update(strategy: Strategy, changed: Collection[str], adapted: Collection[str]) -> None:
    """Raise `ConfigError` where somebody else's strategy leaves out of its update what cameras train, or has more."""
    if _is_shipped(strategy) or strategy.personal_kind:
        return
    if missing := sorted(set(adapted) - set(changed)):
        raise _broken(strategy, f"its update lacks {', '.join(missing[:3])}, which cameras train")
    if unknown := sorted(set(changed) - set(adapted)):
        raise _broken(strategy, f"its update has {', '.join(unknown[:3])}, which no camera trains")


def _is_shipped(strategy: Strategy) -> bool:
    return type(strategy) in [STRATEGIES.load(name) for name in STRATEGIES.names]


def _broken(strategy: Strategy, what: str) -> ConfigError:
    return STRATEGIES.broken(f"{type(strategy).__module__}:{type(strategy).__qualname__}", what)
