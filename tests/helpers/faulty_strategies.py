"""Strategies of one's own: one that reads some replies alone, and some that break their contract."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from fed_lorac.aggregation.aggregators import ClientDelta, weighted_mean
from fed_lorac.server.strategy import Proposal, ServerState, Strategy


@dataclass(frozen=True)
class FirstTwo(Strategy):
    """The mean of the two cameras that reply first."""

    source: ClassVar[str] = "nobody"
    exact: ClassVar[bool] = False

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        mean = weighted_mean(islice(deltas, 2))
        return Proposal({name: total.dense() for name, total in mean.items()}, exact=mean)


@dataclass(frozen=True)
class Modest(Strategy):
    """The mean of all, which says where it is from here alone, and of no other trait anything.

    Source: nobody, 2027.
    """

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        mean = weighted_mean(deltas)
        return Proposal({name: total.dense() for name, total in mean.items()}, exact=mean)


@dataclass(frozen=True)
class Returns(FirstTwo):
    """Gives nothing back."""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        super().propose(server, deltas)
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class Forgets(FirstTwo):
    """Leaves a tensor out of its update."""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        found = super().propose(server, deltas)
        return Proposal(dict(list(found.update.items())[1:]), exact=found.exact)


@dataclass(frozen=True)
class Adds(FirstTwo):
    """Sends a tensor that nobody trains."""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        found = super().propose(server, deltas)
        return Proposal({**found.update, "extra.weight": next(iter(found.update.values()))}, exact=found.exact)


@dataclass(frozen=True)
class Fails(FirstTwo):
    """Raises an error of its own."""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        raise ValueError("not today")


@dataclass(frozen=True)
class Doubles(Strategy):
    """Says that it is exact, and sends twice the mean."""

    source: ClassVar[str] = "nobody"
    exact: ClassVar[bool] = True

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        mean = weighted_mean(deltas)
        return Proposal({name: 2 * total.dense() for name, total in mean.items()}, exact=mean)


@dataclass(frozen=True)
class LeavesOut(Doubles):
    """Says that it is exact, and leaves a tensor out."""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        mean = weighted_mean(deltas)
        return Proposal({name: total.dense() for name, total in list(mean.items())[1:]}, exact=mean)


@dataclass(frozen=True)
class SaysLess(FirstTwo):
    """Says no exact mean."""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        return Proposal(super().propose(server, deltas).update, exact={})


@dataclass(frozen=True)
class KeepsTensors(FirstTwo):
    """Keeps tensors where sums are kept."""

    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        found = super().propose(server, deltas)
        return Proposal(found.update, found.exact, sums={"momentum": found.update})  # type: ignore[dict-item]
