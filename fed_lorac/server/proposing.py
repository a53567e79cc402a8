"""What a strategy makes of a round's replies, and whose error it is where that fails. Knows strategies; not
messages."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from fed_lorac.adapters.deltas import changed_names
from fed_lorac.aggregation.aggregators import ClientDelta
from fed_lorac.aggregation.delta_sum import State
from fed_lorac.errors import ConfigError, FedLoracError, one_line
from fed_lorac.registry import STRATEGIES
from fed_lorac.server.strategy import Proposal, ServerState, Strategy

__all__ = ["check_update", "in_strategy", "proposed"]


def proposed(strategy: Strategy, server: ServerState, states: Iterator[tuple[int, State, int]]) -> Proposal | None:
    """What the strategy would do with these cameras' states; None where there is not one.

    All states are read, whatever the strategy leaves: they have been sent.
    """

    def of_camera(sent: tuple[int, State, int]) -> ClientDelta:
        camera, state, examples = sent
        return server.client_delta(camera, examples, state)

    deltas = map(of_camera, states)
    if (first := next(deltas, None)) is None:
        return None
    held = [first]
    del first  # the strategy alone decides how long a state lives
    found: object = strategy.propose(server, _from(held, deltas))
    for _ in states:
        pass
    if not isinstance(found, Proposal):
        raise _broken(strategy, f"propose gives {type(found).__name__} in place of a Proposal")
    return found


def _from(held: list[ClientDelta], deltas: Iterator[ClientDelta]) -> Iterator[ClientDelta]:
    """The one that is held, which is let go, and the others."""
    yield held.pop()
    yield from deltas


def check_update(strategy: Strategy, update: State, adapted: Collection[str]) -> None:
    """Raise `ConfigError` where somebody else's strategy leaves out of its update what cameras train, or has more."""
    if _is_shipped(strategy) or strategy.personal_kind or strategy.update_kind != "delta":
        return
    changed = changed_names(update)
    if missing := sorted(set(adapted) - set(changed)):
        raise _broken(strategy, f"its update lacks {', '.join(missing[:3])}, which cameras train")
    if unknown := sorted(set(changed) - set(adapted)):
        raise _broken(strategy, f"its update has {', '.join(unknown[:3])}, which no camera trains")


@contextmanager
def in_strategy(strategy: Strategy, round: int) -> Iterator[None]:
    """Where somebody else's strategy fails, the error names it."""
    try:
        yield
    except FedLoracError:
        raise
    except Exception as error:
        if _is_shipped(strategy):
            raise
        raise _broken(strategy, f"in round {round} it fails with {one_line(error)}") from error


def _is_shipped(strategy: Strategy) -> bool:
    return type(strategy) in [STRATEGIES.load(name) for name in STRATEGIES.names]


def _broken(strategy: Strategy, what: str) -> ConfigError:
    return STRATEGIES.broken(f"{type(strategy).__module__}:{type(strategy).__qualname__}", what)
