"""[strategy]: what the server does with the replies. Each strategy's own settings are its class's."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from fed_lorac import registry
from fed_lorac.config.section import Section, When
from fed_lorac.runtime.settings import setting

__all__ = ["StrategyConfig"]

_PARTS = ("aggregator", "server_optimizer")


def _takes(part: str) -> Callable[[object], bool]:
    """Whether a strategy of this name has a place for the part; one of no known name may have."""
    return lambda name: (
        registry.STRATEGIES.find(str(name)) is None
        or part in {one.name for one in fields(registry.STRATEGIES.load(str(name)))}
    )


@dataclass(frozen=True)
class StrategyConfig(Section):
    """What the server does with the replies."""

    section: ClassVar[str] = "strategy"
    choices: ClassVar = {
        "name": registry.STRATEGIES,
        "aggregator": registry.AGGREGATORS,
        "server_optimizer": registry.SERVER_OPTIMIZERS,
    }
    under: ClassVar = {
        part: When("name", _takes(part), 'a strategy that takes one, such as "merged"') for part in _PARTS
    }
    name: str = setting(
        "merged",
        "what the server makes of the replies, and what it sends down",
        choices=registry.STRATEGIES.names,
        outside=registry.STRATEGIES.is_outside,
    )
    aggregator: str = setting(
        "mean", "how the cameras' deltas (changes of the weights) become one", choices=registry.AGGREGATORS.names
    )
    server_optimizer: str = setting(
        "sgd", "how the server steps along that delta", choices=registry.SERVER_OPTIMIZERS.names
    )
    quorum: float = setting(
        0.5, "share of a round's cameras that must reply for it to count; at least one", least=0, most=1
    )

    def strategy(self) -> Any:
        """The strategy with its settings; its aggregator and server optimizer are built too, where it takes them."""
        parts = {key: self.build(key) for key in _PARTS if key in self.in_view(vars(self))}
        return self.build("name", **parts)
