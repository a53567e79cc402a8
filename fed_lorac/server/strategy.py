"""A strategy as a value: what a server makes of a round's deltas, and what it keeps. Knows sums of deltas; not Flower,
frames, quorums, or who is asked and told: `FrameStrategy` drives it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import torch

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.aggregation.aggregators import ClientDelta
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, sum_states
from fed_lorac.errors import ConfigError
from fed_lorac.runtime.settings import check_settings
from fed_lorac.seeds import torch_stream
from fed_lorac.server.frame_spec import FrameSpec

__all__ = ["Notes", "PersonalPart", "Proposal", "ServerState", "SilentStrategy", "Strategy", "Traits"]

Notes = Mapping[str, Mapping[str, int]]


def _no_weather(camera: int) -> int:
    raise ConfigError(
        f"Clusters by weather need the weather of every camera; nobody has said that of camera {camera}. Give "
        'FrameStrategy `weather_of`, or cluster by = "similarity".'
    )


@dataclass(frozen=True)
class ServerState:
    """All that a server goes on from, beside the updates that it has sent.

    Args:
        spec: what it agreed on with its cameras.
        seed: of its random streams.
        round: the round at hand in `propose` and `commit`; afterwards that of the last update, 0 before the first.
        sums: kind ("residual", "momentum", ...) -> tensor name -> sum. A checkpoint keeps them.
        notes: kind -> plain numbers by name, kept too.
        weather_of: camera -> the number of its weather.
    """

    spec: FrameSpec
    seed: int = 0
    round: int = 0
    sums: Mapping[str, Sums] = field(default_factory=dict, repr=False)
    notes: Notes = field(default_factory=dict, repr=False)
    weather_of: Callable[[int], int] = field(default=_no_weather, repr=False)

    def with_(self, sums: Mapping[str, Sums], notes: Notes | None = None) -> Self:
        """The state with these sums in place of all before, and these notes over those before."""
        return replace(self, sums=sums, notes={**self.notes, **(notes or {})})

    def client_delta(self, camera: int, weight: float, state: State) -> ClientDelta:
        """What a state of the round at hand says, sent by a camera with so many examples."""
        delta = dict(self.spec.to_delta(self.round)(state))
        return ClientDelta(camera, weight, state, delta, self.spec.shapes, self.spec.scale)

    def noise(self) -> torch.Generator:
        """The round's random stream."""
        return torch_stream(self.seed, "noise", self.round)


@dataclass(frozen=True)
class Proposal:
    """What a strategy would do after a round. Nothing is done yet: the quorum may fail, or the codec refuse the update.

    Args:
        update: goes down to every camera: factor pairs and dense tensors, by name.
        exact: the mean that the update should say; the distance to it is the round's `aggregation_error`.
        sums: what `commit` is to go on from; by default the sums of the server's next state.
        notes: the same for its notes.
    """

    update: State
    exact: Sums
    sums: Mapping[str, Sums] = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)


@dataclass(frozen=True)
class PersonalPart:
    """Parameters that some cameras have and others have not.

    Cameras of one `name` share them, as one frame; `round` is the one in which they last changed: who has folded a
    later update has them. `state` makes them, when they are to be sent.
    """

    name: tuple[str, int]
    round: int
    state: Callable[[], State] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Traits(ABC):
    """What is said of every strategy, whether anything is sent or not."""

    source: ClassVar[str]
    """Where the strategy is from: a paper with its arXiv id."""

    exact: ClassVar[bool]
    """Whether its mean is that of the decoded deltas, for every adapter that it accepts, before the downlink codec."""

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

    update_kind: ClassVar[Literal["delta", "state", "factors"]] = "delta"
    """What an update is: a delta, which cameras fold; a state, which the adapter turns into a delta first; or factors
    that take the place of the factors before, unfolded."""

    personal_kind: ClassVar[Literal["", "delta", "adapter"]] = ""
    """What a camera's personal parameters are: none; a delta beside the global model, which its adapter trains on top
    of; or the state of the adapter that it goes on training."""

    def __post_init__(self) -> None:
        check_settings(self)

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
        return (
            "Cameras may differ in rank where the products of their factors are averaged; factors that are averaged "
            f"apart, and states over one frozen basis, must be of one rank. Came ranks {', '.join(map(str, ranks))} of "
            f"{type(adapter).__name__} with {type(self).__name__}. Give all cameras one rank, or use LoraC with "
            "FlexLora, Flora or MergedFedAvg."
        )


@dataclass(frozen=True)
class SilentStrategy(Traits):
    """A baseline under which nothing is sent: there is nothing to propose."""

    exact = False
    sends = False


@dataclass(frozen=True)
class Strategy(Traits):
    """What a server makes of a round: a frozen dataclass whose fields are its settings. All methods are pure.

    `propose` is all that a simple one needs:

        @dataclass(frozen=True)
        class PlainMean(Strategy):
            source, exact = "FedAvg, arXiv 1602.05629", True

            def propose(self, server, deltas):
                mean = weighted_mean(deltas)
                return Proposal({name: total.dense() for name, total in mean.items()}, exact=mean)
    """

    @abstractmethod
    def propose(self, server: ServerState, deltas: Iterable[ClientDelta]) -> Proposal:
        """The round's update, out of at least one camera's delta.

        Deltas come one by one, in the order in which cameras were asked, and as they are decoded: what is not summed up
        or kept is gone when the next one comes.
        """

    def commit(self, server: ServerState, proposal: Proposal, decoded: Sums) -> ServerState:
        """The state after the round; `decoded` is what the update says as cameras decode it.

        By default it keeps the proposal's sums, and no others.
        """
        return server.with_(proposal.sums, proposal.notes)

    def decode_update(self, server: ServerState, update: State) -> Sums:
        """What cameras make of an update, as a delta."""
        return sum_states([(update, 1.0)], server.spec.shapes, 1.0)

    def not_in_updates(self, server: ServerState) -> Sums:
        """What the global model has that no update holds."""
        return {}

    def gained(self, before: ServerState, after: ServerState, decoded: Sums) -> Sums:
        """What the weights of the global model gain by a round: the update, and what changed that is in none."""
        total = dict(decoded)
        for name, now in self.not_in_updates(after).items():
            total[name] = DeltaSum(now.shape).add(now)
        for name, then in self.not_in_updates(before).items():
            total[name].add(then, -1.0)
        return total

    def personal(self, server: ServerState, camera: int) -> PersonalPart | None:
        """The part of the network that this camera does not share with all; None: there is none."""
        return None

    def withhold(self, before: ServerState, after: ServerState, part: PersonalPart) -> ServerState | None:
        """The state after the round where the codec refuses a personal part; None: the round is skipped."""
        return None

    def cluster_of(self, server: ServerState, camera: int) -> int | None:
        """The cluster that a camera belongs to; None: none, or not yet."""
        return None

    def block_key(self, server: ServerState, camera: int) -> int:
        """Cameras of one key are asked next to one another: they can train side by side in one block."""
        return server.spec.kind(camera)
