"""What is said of every strategy, whether anything is sent or not. Knows adapters; not states, frames or Flower."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.runtime.settings import check_settings

if TYPE_CHECKING:
    from fed_lorac.training.objectives.objective import Objective

__all__ = ["SilentStrategy", "Traits"]


@dataclass(frozen=True)
class Traits(ABC):  # noqa: B024  (what is abstract is in those that extend it)
    """What is said of every strategy, whether anything is sent or not."""

    source: ClassVar[str] = ""
    """Where the strategy is from: a paper with its arXiv id. "": its docstring says it (`runtime.origin`)."""

    exact: ClassVar[bool] = False
    """Whether its mean is that of the decoded deltas, for every adapter that it accepts, before the downlink codec."""

    found_lr: ClassVar[float] = 0.0
    """The `local.lr` that a search found where this strategy makes steps of another length; 0: the adapter's."""

    sends: ClassVar[bool] = True
    """Whether anything crosses the radio."""

    trains: ClassVar[bool] = True
    """Whether cameras train."""

    rotates: ClassVar[bool] = False
    """Whether what adapters draw and freeze is drawn anew for each round."""

    draws_anew: ClassVar[bool] = False
    """Whether every local update begins with factors that are drawn anew, the same for all cameras."""

    one_rank: ClassVar[bool] = False
    """Whether all cameras must have adapters of one rank."""

    forward_only: ClassVar[bool] = False
    """Whether cameras train by forward passes alone."""

    update_kind: ClassVar[Literal["delta", "state", "factors"]] = "delta"
    """What an update is: a delta, which cameras fold; a state, which the adapter turns into a delta first; or factors
    that take the place of the factors before, unfolded."""

    personal_kind: ClassVar[Literal["", "delta", "adapter"]] = ""
    """What a camera's personal parameters are: none; a delta beside the global model, which its adapter trains on top
    of; or the state of the adapter that it goes on training."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def least_replies(self) -> int:
        """How many counted replies its mean needs to mean anything: a round with fewer is skipped."""
        return 1

    def adapted(self, adapter: Adapter) -> Adapter:
        """What cameras train in an adapter's stead: with its basis frozen, where that is drawn anew each round."""
        return (adapter.with_frozen_basis() or adapter) if self.rotates else adapter

    def objective(self, objective: "Objective") -> "Objective":
        """What a step lowers in an objective's stead."""
        return objective

    def refuses(self, adapter: Adapter) -> str | None:
        """Why this strategy cannot work with what cameras train: the law, what came, the remedy. None: it can."""
        return None

    def refuses_fleet(self, *, per_round: int, weather_walks: bool) -> str | None:
        """The same for the fleet: cameras drawn a round, and whether each camera goes through all weathers."""
        return None

    def refuses_ranks(self, adapter: Adapter, ranks: Sequence[int]) -> str | None:
        """The same for cameras whose adapters differ in rank, these being the ranks."""
        if len(set(ranks)) < 2 or (adapter.has_factors and not self.one_rank):
            return None
        its, other = ("", "use LoraC with FlexLora, Flora or MergedFedAvg") if self.one_rank else _of_one_rank(adapter)
        return (
            "Cameras may differ in rank where the products of their factors are averaged; factors that are averaged "
            f"apart, and states over one frozen basis, must be of one rank. Came ranks {', '.join(map(str, ranks))} of "
            f"{type(adapter).__name__}{its} with {type(self).__name__}. Give all cameras one rank, or {other}."
        )

    def refuses_unadapted(self, adapter: Adapter) -> str | None:
        """The same for an adapter that cameras train as it is given: `adapted` must leave it as it is."""
        if self.adapted(adapter) == adapter:
            return None
        return (
            f"Cameras train what {type(self).__name__} makes of an adapter, and the server reads their states so; came "
            f"{adapter}, of which it makes another. Give `strategy.adapted(adapter)`, and have cameras attach that."
        )


def _of_one_rank(adapter: Adapter) -> tuple[str, str]:
    """What of an adapter's states binds them to one rank, where its parts do, and what to do about it, in words."""
    parts = [part for place, part in enumerate(getattr(adapter, "parts", ())) if place not in adapter.personal]
    frozen = [part for part in parts if not part.state_is_delta]
    names = ", ".join(type(part).__name__ for part in frozen)
    if frozen and all(getattr(part, "end_rank", 0) and replace(part, end_rank=0).state_is_delta for part in frozen):
        return f", of which {names} has an end_rank, over a drawn basis,", f"set end_rank = 0 of {names}"
    if frozen:
        return f", of which {names} is over a frozen basis,", f"leave {names} out"
    if parts:
        return ", whose parts' products differ in scale,", "choose parts of one scale"
    return "", "use LoraC with FlexLora, Flora or MergedFedAvg"


@dataclass(frozen=True)
class SilentStrategy(Traits):
    """A baseline under which nothing is sent: there is nothing to propose."""

    exact = False
    sends = False
