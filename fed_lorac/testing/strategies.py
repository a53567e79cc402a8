"""The laws of a strategy: it is a value, its methods are pure, and an exact one's update is the cameras' mean."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.aggregation.aggregators import ClientDelta, Mean
from fed_lorac.aggregation.delta_sum import DeltaSum, Sums
from fed_lorac.aggregation.server_optimizers import Sgd
from fed_lorac.runtime.origin import origin_of
from fed_lorac.seeds import torch_stream
from fed_lorac.server.strategy import FrameSpec, Proposal, ServerState, Strategy
from fed_lorac.testing.laws import distance, moved, small_model, told, under

__all__ = ["check_strategy"]

_CAMERAS = 4


def check_strategy(strategy: Strategy, adapter: Adapter | None = None, model: nn.Module | None = None) -> None:
    """Hold a strategy to its laws over a few rounds of made-up cameras, without Flower, frames or training.

    Args:
        strategy: with the settings to be checked.
        adapter: what the cameras train; None: LoraC(rank=2).
        model: a plain network; None: a small ResNet-8.

    Raises:
        AssertionError: a law is broken; it says which, and what came.
    """
    _Checks(strategy, adapter or LoraC(rank=2), model if model is not None else small_model().float()).all()


class _Checks:
    def __init__(self, strategy: Strategy, adapter: Adapter, model: nn.Module) -> None:
        self.strategy, self.model = strategy, model
        why = strategy.refuses(adapter)
        self.law("it must take the adapter that it is checked with", why is None, why)
        self.adapter = strategy.adapted(adapter).fit_to(model)
        spec = FrameSpec.for_model(model, self.adapter, rotates=strategy.rotates)
        self.spec = spec
        self.start = ServerState(spec, weather_of=lambda camera: camera % 2)

    def law(self, text: str, holds: object, came: object = "") -> None:
        under(told(self.strategy, text), holds, came)

    def all(self) -> None:
        """Every law, the simplest first."""
        self.law("source must name where the strategy is from", origin_of(type(self.strategy)))
        self.law("a strategy must be a value, equal to its copies", copy.deepcopy(self.strategy) == self.strategy)
        server = self.start
        for round in (1, 2, 3):
            server = self.checked_round(replace(server, round=round))
        self.equal_cameras_leave_nothing_out()

    def checked_round(self, server: ServerState) -> ServerState:
        """One round, held to every law; the state after it."""
        deltas = self.deltas(server.round)
        before = snapshot(server), [dict(one.state) for one in deltas]
        proposal, again = self.strategy.propose(server, deltas), self.strategy.propose(server, iter(deltas))
        self.well_formed(proposal)
        self.law("propose must be pure: the same of the same state and deltas", same(proposal, again))
        decoded = self.strategy.decode_update(server, proposal.update)
        after, twin = (self.strategy.commit(server, proposal, decoded) for _ in range(2))
        self.law("commit must be pure: the same of the same proposal", snapshot(after) == snapshot(twin))
        self.law("propose and commit must leave the state before as it was", snapshot(server) == before[0])
        pairs = zip(deltas, before[1], strict=True)
        kept = all(torch.equal(one.state[name], state[name]) for one, state in pairs for name in state)
        self.law("propose must leave what cameras sent as it was", kept)
        self.law("a state must have the round that it is of", after.round == server.round, after.round)
        self.survives_a_checkpoint(after)
        if self.strategy.exact:
            self.is_mean(proposal, deltas)
        self.order_matters_not(server, deltas, proposal)
        return after

    def well_formed(self, proposal: Proposal) -> None:
        self.law("propose must give a Proposal", isinstance(proposal, Proposal), type(proposal).__name__)
        self.law("the exact mean must be of the network's tensors", proposal.exact.keys() <= self.spec.shapes.keys())
        for name, tensor in proposal.update.items():
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            sound = isinstance(tensor, Tensor) and kind == torch.float32 and bool(tensor.isfinite().all())
            self.law(f"the update's {name!r} must be a finite float32 tensor", sound, kind)

    def is_mean(self, proposal: Proposal, deltas: Sequence[ClientDelta]) -> None:
        """By another route: each delta dense, in float64. Of Sgd with a learning rate of 1 and the Mean alone."""
        if not self.takes_the_mean_as_it_is():
            return
        weight = sum(one.weight for one in deltas)
        for name, total in proposal.exact.items():
            mean = sum(one.weight / weight * one.sums()[name].dense64() for one in deltas)
            off = distance(total.dense64(), torch.as_tensor(mean))
            self.law(f"exact says that {name!r} is the weighted mean of the deltas", off < 1e-5, f"{off:.2g} off")

    def order_matters_not(self, server: ServerState, deltas: Sequence[ClientDelta], proposal: Proposal) -> None:
        turned = self.strategy.propose(server, list(reversed(deltas)))
        for name, total in proposal.exact.items():
            off = distance(turned.exact[name].dense64(), total.dense64())
            self.law(f"the order of cameras may move {name!r} by rounding alone", off < 1e-5, f"{off:.2g} off")

    def survives_a_checkpoint(self, state: ServerState) -> None:
        """Sums are saved as their parts, notes as whole numbers by text."""
        for kind, sums in state.sums.items():
            for name, total in sums.items():
                came = type(total).__name__
                self.law(f"what is kept as {kind!r} must be a DeltaSum", isinstance(total, DeltaSum), came)
                back = DeltaSum.of_parts(total.parts())
                self.law(f"{kind}/{name} must survive a checkpoint", torch.equal(back.dense64(), total.dense64()))
        for notes in state.notes.values():
            plain = all(isinstance(key, str) and isinstance(value, int) for key, value in notes.items())
            self.law("notes must be whole numbers by text", plain, notes)

    def equal_cameras_leave_nothing_out(self) -> None:
        """Where all cameras send one delta and nothing was kept yet, the global model gains that delta: by what cameras
        make of the update, and by what the server keeps for later ones."""
        if not self.strategy.exact or not self.takes_the_mean_as_it_is():
            return
        first, *others = self.deltas(1)
        alike = [first, *(replace(one, state=first.state, delta=first.delta) for one in others)]
        server = replace(self.start, round=1)
        proposal = self.strategy.propose(server, alike)
        decoded = self.strategy.decode_update(server, proposal.update)
        gained = self.strategy.gained(server, self.strategy.commit(server, proposal, decoded), decoded)
        for name, said in alike[0].sums().items():
            self.law(
                f"an exact strategy must have the mean of all that cameras send; it lacks {name!r}", name in gained
            )
            off = distance(proposal.exact[name].dense64(), said.dense64())
            self.law(f"the mean of equal deltas of {name!r} must be that delta", off < 1e-5, f"{off:.2g} off")
            off = distance(gained[name].dense64(), said.dense64())
            self.law(f"{name!r} must gain what all cameras say, as exact promises", off < 1e-4, f"{off:.2g} off")

    def takes_the_mean_as_it_is(self) -> bool:
        """Whether the server steps by the mean itself: no robust aggregator, no momentum, a learning rate of 1."""
        aggregator, optimizer = (getattr(self.strategy, part, None) for part in ("aggregator", "server_optimizer"))
        return aggregator in (None, Mean()) and optimizer in (None, Sgd())

    def deltas(self, round: int) -> list[ClientDelta]:
        """What four cameras send in a round: their networks moved by noise."""
        return list(self._deltas(round))

    def _deltas(self, round: int) -> Iterator[ClientDelta]:
        drawn = round if self.strategy.rotates else 0
        for camera in range(_CAMERAS):
            model = copy.deepcopy(self.model)
            self.adapter.attach(model, torch_stream(0, "adapter", drawn))
            state = self.adapter.read(moved(model, 10 * round + camera, share=0.01))
            delta = dict(self.spec.to_delta(drawn)(state))
            yield ClientDelta(camera, 100.0 + camera, state, delta, self.spec.shapes, self.spec.scale)


Snapshot = tuple[int, Mapping[str, Mapping[str, int]], dict[tuple[str, str], bytes]]


def snapshot(state: ServerState) -> Snapshot:
    """All that a checkpoint keeps, as values that compare."""
    return state.round, {kind: dict(notes) for kind, notes in state.notes.items()}, _numbers(state.sums)


def _numbers(sums: Mapping[str, Sums]) -> dict[tuple[str, str], bytes]:
    return {(kind, name): t.dense64().numpy().tobytes() for kind, totals in sums.items() for name, t in totals.items()}


def same(one: Proposal, other: Proposal) -> bool:
    """The same update, mean and notes, to the last bit."""
    tensors = [{name: t.numpy().tobytes() for name, t in proposal.update.items()} for proposal in (one, other)]
    means = [_numbers({"exact": proposal.exact, **proposal.sums}) for proposal in (one, other)]
    return tensors[0] == tensors[1] and means[0] == means[1] and one.notes == other.notes
