"""Where somebody else's strategy breaks its contract: an error that names it. Knows strategies; not messages."""

from collections.abc import Collection

from fed_lorac.adapters.deltas import changed_names
from fed_lorac.aggregation.delta_sum import DeltaSum
from fed_lorac.errors import ConfigError, FedLoracError, one_line
from fed_lorac.registry import STRATEGIES
from fed_lorac.server.strategy import Proposal, Strategy

__all__ = ["check_proposal", "fault_of"]


def fault_of(flower_strategy: object, round: int, error: Exception) -> Exception:
    """The error to raise where one came up in a round: one that names the strategy, where it is somebody else's, and
    nobody has said yet whose fault it is; else the same."""
    strategy = getattr(flower_strategy, "strategy", None)  # what a `FrameStrategy` runs
    if isinstance(error, FedLoracError) or not isinstance(strategy, Strategy) or _is_shipped(strategy):
        return error
    return _broken(strategy, f"in round {round} it fails with {one_line(error)}")


def check_proposal(strategy: Strategy, proposal: Proposal, adapted: Collection[str]) -> None:
    """Raise `ConfigError` where somebody else's strategy keeps what is no sum; or where its update, if that is a delta,
    or the mean that this should say lacks what cameras train, or has more."""
    if _is_shipped(strategy):
        return
    for kind, sums in {"the exact mean": proposal.exact, **proposal.sums}.items():
        if strange := [name for name, total in sums.items() if not isinstance(total, DeltaSum)]:
            came = type(sums[strange[0]]).__name__
            raise _broken(strategy, f"{kind} of {strange[0]} is a {came}, not a DeltaSum(shape).add_dense(tensor, 1.0)")
    if strategy.personal_kind or strategy.update_kind != "delta":
        return
    for what, names in ("update", changed_names(proposal.update)), ("exact mean", proposal.exact):
        if missing := sorted(set(adapted) - set(names)):
            raise _broken(strategy, f"its {what} lacks {', '.join(missing[:3])}, which cameras train")
        if unknown := sorted(set(names) - set(adapted)):
            raise _broken(strategy, f"its {what} has {', '.join(unknown[:3])}, which no camera trains")


def _is_shipped(strategy: Strategy) -> bool:
    return type(strategy) in [STRATEGIES.load(name) for name in STRATEGIES.names]


def _broken(strategy: Strategy, what: str) -> ConfigError:
    return STRATEGIES.broken(f"{type(strategy).__module__}:{type(strategy).__qualname__}", what)
