"""A strategy as a value: what a server and its cameras agree on before the first round, what the server makes of a
round's deltas, and what it keeps. Knows adapters, the layout of frames and sums of deltas; not Flower, frames' bytes,
quorums, or sampling: `FrameStrategy` drives it."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Self

import torch
from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.algebra.factors import view_of
from fed_lorac.adapters.deltas import ToDelta, changed_names, check_delta, is_delta_already, pair_of
from fed_lorac.aggregation.aggregators import ClientDelta
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, sum_states
from fed_lorac.errors import ConfigError
from fed_lorac.models.fingerprints import fingerprint, named_tensors, shapes_of
from fed_lorac.seeds import torch_stream
from fed_lorac.server.traits import Traits
from fed_lorac.wire.codecs.codecs import Codec
from fed_lorac.wire.frame import TOPK_SHARE, payload_bytes
from fed_lorac.wire.template import Template, template_of

__all__ = [
    "DownlinkCodec",
    "FrameSpec",
    "Notes",
    "PersonalPart",
    "Proposal",
    "ServerState",
    "Shapes",
    "Strategy",
    "client_deltas",
]

Notes = Mapping[str, Mapping[str, int]]

Shapes = Mapping[str, Sequence[int]]
"""Tensor name -> shape."""


@dataclass(frozen=True, eq=False)
class FrameSpec:
    """What a server and its cameras agree on before the first round: what frames are over, and what they hold.

    Args:
        base: fingerprint of the starting base, which both ends have.
        shapes: of the base's tensors.
        template: of the tensors in a camera's frame (`Adapter.read` of an adapter that was attached and not trained);
            where cameras differ in rank, the largest.
        scale: what a delta's factor products are multiplied by, alpha / r.
        to_delta: round -> what a state of that round says, as a delta (`Adapter.to_delta`).
        template_of: camera -> its own template, where cameras differ in rank.
        other_templates: those of cameras of other ranks.
        names_down: whether frames down name their tensors: cameras that do not have this agreement can read no others.
            Frames up are read with names and without.

    Raises:
        FactorError: the template does not fit the shapes.
    """

    base: str
    shapes: Shapes = field(repr=False)
    template: Shapes = field(repr=False)
    scale: float = 1.0
    to_delta: Callable[[int], ToDelta] = field(default=lambda round: is_delta_already, repr=False)
    template_of: Callable[[int], Shapes] | None = field(default=None, repr=False)
    other_templates: Sequence[Shapes] = field(default=(), repr=False)
    names_down: bool = True
    deltas: Shapes = field(init=False, repr=False)
    """Shapes of the tensors of a delta: what the template's state says."""
    templates: tuple[Template, ...] = field(init=False, repr=False)
    """What frames without names may be of: a camera's state, and an update, which may hold a delta of less rank, more
    rank, or dense."""

    def __post_init__(self) -> None:
        delta = self.to_delta(0)({name: torch.zeros(tuple(shape)) for name, shape in self.template.items()})
        check_delta(delta, self.shapes)
        object.__setattr__(self, "deltas", {name: tensor.shape for name, tensor in delta.items()})
        states = map(template_of, (self.template, *self.other_templates, self.deltas))
        object.__setattr__(self, "templates", (*states, self._update_template()))

    def _update_template(self) -> Template:
        views = {}
        for name in (names := changed_names(self.deltas)):
            if (pair := pair_of(self.deltas, name)) is not None:
                a, b = pair
                views[name] = (b[0], a[1]) if len(a) == 2 else view_of(self.shapes[name])
        return template_of({name: self.shapes[name] for name in names}, views)

    @classmethod
    def for_model(cls, model: nn.Module, adapter: Adapter, *, seed: int = 0, rotates: bool = False) -> Self:
        """The agreement for a plain network, which is left as it is, and the way that cameras adapt it.

        Cameras attach the adapter by the stream (seed, "adapter", round) where the basis `rotates`, else of round 0.
        ConfigError where it has bases that only a run finds.
        """
        if adapter.finds_bases:
            raise ConfigError(
                'Bases of gradients are found in a first round of a run (fed_lorac.run); got bases = "gradient" for a '
                'strategy that is given its model. Set bases = "weight", or run a config.'
            )
        start, twin, adapter = copy.deepcopy(model), copy.deepcopy(model), adapter.fit_to(model)
        adapter.attach(twin, torch_stream(seed, "adapter", 0))

        @lru_cache(maxsize=1)
        def to_delta(round: int) -> ToDelta:
            return adapter.to_delta(start, torch_stream(seed, "adapter", round if rotates else 0))

        return cls(
            base=fingerprint(named_tensors(model)),
            shapes=shapes_of(model),
            template={key: tensor.shape for key, tensor in adapter.read(twin).items() if not adapter.is_personal(key)},
            scale=adapter.scale,
            to_delta=to_delta,
        )

    @property
    def states_are_deltas(self) -> bool:
        """Whether a camera's state is itself a delta; else the server adds the frozen part, which both ends know."""
        return set(self.template) == set(self.deltas)

    def template_for(self, camera: int) -> Shapes:
        """What this camera's frame holds."""
        return self.template if self.template_of is None else self.template_of(camera)

    def kind(self, camera: int) -> int:
        """Equal for cameras of one rank: the number of values in their frames; 0 where all are of one rank."""
        return 0 if self.template_of is None else sum(math.prod(shape) for shape in self.template_of(camera).values())


@dataclass(frozen=True)
class DownlinkCodec:
    """How the numbers of frames down travel: `dtype` is a codec or its name; `topk_share`, what topk sends; `entropy`,
    whether they are entropy-coded, where frames do not name their tensors.

    Raises:
        FrameError: no such dtype, or a share that topk cannot send.
    """

    dtype: str | Codec = "fp32"
    topk_share: float = TOPK_SHARE
    entropy: bool = False

    def __post_init__(self) -> None:
        payload_bytes({}, self.dtype, self.topk_share)


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


def client_deltas(server: ServerState, states: Iterator[tuple[int, State, int]]) -> Iterator[ClientDelta] | None:
    """What (camera, state, examples) say, one after the other, each let go as it is taken; None of no camera."""

    def of_camera(sent: tuple[int, State, int]) -> ClientDelta:
        return server.client_delta(sent[0], sent[2], sent[1])

    def each(held: list[ClientDelta]) -> Iterator[ClientDelta]:
        yield held.pop()
        yield from deltas

    first = next(deltas := map(of_camera, states), None)
    return None if first is None else each([first])


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
