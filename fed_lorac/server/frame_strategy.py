"""Rounds over frames: judges cameras' frames as they come, has a strategy make one update of them, and sends it. Knows
Flower's records and frames; not how deltas are averaged (the strategy does that), nor which cameras are sampled
(`fleet_strategy`)."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from torch import nn

from fed_lorac.adapters.adapter import Adapter
from fed_lorac.adapters.deltas import changed_names, is_variance
from fed_lorac.aggregation.delta_sum import DeltaSum, State, Sums, relative_distance, sum_states
from fed_lorac.errors import ConfigError
from fed_lorac.seeds import stream
from fed_lorac.server.fleet_strategy import EncodeGlobalModel, FleetStrategy, Update
from fed_lorac.server.own_strategy import check_proposal
from fed_lorac.server.replies import Reply, ReplyCollector, train_metrics
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.strategy import (
    DownlinkCodec,
    FrameSpec,
    Notes,
    PersonalPart,
    Proposal,
    ServerState,
    Shapes,
    Strategy,
    client_deltas,
)
from fed_lorac.server.unheard import lost_on_the_way
from fed_lorac.wire.billing import MessageSize
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.refusals import RefusedFrameError
from fed_lorac.wire.updates import global_fingerprint, personal_fingerprint

__all__ = ["FrameStrategy"]

_log = logging.getLogger("flwr")


class FrameStrategy(FleetStrategy):
    """A Flower Strategy whose messages are frames; any ServerApp can `start` it.

        FrameStrategy.for_model(MergedFedAvg(downlink="svd"), model, LoraC(rank=2, alpha=4.0), quorum=3)

    What a camera answers when asked to train: one ArrayRecord, `wire.billing.frame_record` of its frame, and one
    MetricRecord with `num-examples` and, as it likes, `train-loss`.

    `start` keeps the arrays that it is given current, W_{t+1} = W_t + D: give it the starting base's state_dict, and
    `evaluate_fn` and the result see the global model; give it none where cameras alone evaluate.

    Args:
        strategy: what is made of a round's deltas.
        spec: what is agreed on with the cameras.
        codec: of the frames down.
        seed: the seed of the streams ("codec", "server", round) and ("noise", round).
        rules: who takes part in a round, and its quorum.
        encode_global_model: see `FleetStrategy`.
        weather_of: camera -> the number of its weather, for strategies that cluster cameras by it.
    """

    def __init__(
        self,
        strategy: Strategy,
        spec: FrameSpec,
        *,
        codec: DownlinkCodec | None = None,
        seed: int = 0,
        rules: FleetRules | None = None,
        encode_global_model: EncodeGlobalModel | None = None,
        weather_of: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(strategy.source, rules or FleetRules(), encode_global_model)
        self.strategy, self.spec, self.codec = strategy, spec, codec or DownlinkCodec()
        self.quorum = max(self.quorum, strategy.least_replies)
        self.state = ServerState(spec, seed)
        if weather_of is not None:
            self.state = replace(self.state, weather_of=weather_of)
        self._personal_frames: dict[tuple[str, int], tuple[int, bytes]] = {}

    @classmethod
    def for_model(
        cls,
        strategy: Strategy,
        model: nn.Module,
        adapter: Adapter,
        *,
        quorum: int = 1,
        codec: DownlinkCodec | None = None,
        seed: int = 0,
        rules: FleetRules | None = None,
        weather_of: Callable[[int], int] | None = None,
    ) -> Self:
        """A strategy for a plain network, which is left as it is, and the way that cameras adapt it.

        Cameras attach the adapter by the stream (seed, "adapter", round) where the strategy `rotates`, else of round 0.
        `quorum` is that of the rules, where none are given.

        Raises:
            ConfigError: the strategy cannot work with this adapter, or makes another of it (`Strategy.adapted`).
        """
        if why := strategy.refuses(adapter) or strategy.refuses_unadapted(adapter):
            raise ConfigError(why)
        spec = FrameSpec.for_model(model, adapter, seed=seed, rotates=strategy.rotates)
        rules = rules or FleetRules(quorum)
        return cls(strategy, spec, codec=codec, seed=seed, rules=rules, weather_of=weather_of)

    @property
    def sums(self) -> Mapping[str, Sums]:
        """Those of the state."""
        return self.state.sums

    @property
    def notes(self) -> Notes:
        """Those of the state."""
        return self.state.notes

    def resume(
        self, updates: Iterable[Update], confirmed: Mapping[int, int], sums: Mapping[str, Sums], notes: Notes
    ) -> None:
        """As `FleetStrategy`'s."""
        super().resume(updates, confirmed, sums, notes)
        self.state = replace(self.state, round=self.folded_round, sums=sums, notes=notes)
        self._personal_frames = {}

    def personal_update(self, camera: int) -> Update | None:
        """The camera's personal part as a frame: made once for all cameras that share it."""
        part = self.strategy.personal(self.state, camera)
        return None if part is None else Update(part.round, self._personal_frame(part))

    def cluster_of(self, camera: int) -> int | None:
        """As the strategy has it."""
        return self.strategy.cluster_of(self.state, camera)

    def not_in_updates(self) -> Sums:
        """As the strategy has it."""
        return self.strategy.not_in_updates(self.state)

    def block_key(self, camera: int) -> int:
        """As the strategy has it."""
        return self.strategy.block_key(self.state, camera)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As `FleetStrategy`'s; `arrays` hold all that is adapted, or nothing."""
        return super().configure_train(
            server_round, _check_arrays(arrays, changed_names(self.spec.deltas)), config, grid
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies as they come and make the round's update; (None, None) where the quorum is not met."""
        base, report = global_fingerprint(self.spec.base, self.folded_round), self.report
        server = replace(self.state, round=server_round)
        collector = self._collector(self.spec.template_for)
        proposal = self._propose(server, collector.states(replies))
        report.replies = list(collector.verdicts.values())
        counted = [reply for reply in report.replies if reply.counted]
        for reply in counted:  # its frame is for the current base, so it has folded all
            self._downlink.confirm(reply.camera, self.folded_round)
        gained = self._commit(server, proposal, base) if proposal and len(counted) >= self.quorum else None
        report.skipped = gained is None
        if gained is None:
            return None, None
        return _add_to_arrays(self._arrays, gained), train_metrics(counted)

    def summary(self) -> None:
        """Say in Flower's log what is averaged, and how it goes down."""
        _log.info("\t├──> base %s, %d tensors in a frame up", self.spec.base, len(self.spec.template))
        _log.info("\t└──> %s frames down, quorum %d", self.codec.dtype, self.quorum)

    def agree(self, spec: FrameSpec) -> None:
        """Go on with another agreement, over the same base."""
        self.spec, self.state = spec, replace(self.state, spec=spec)

    def _collector(self, template: Callable[[int], Shapes]) -> ReplyCollector:
        """What judges the round's replies, whose frames have each camera's template."""
        base, drawn = global_fingerprint(self.spec.base, self.folded_round), [r.camera for r in self.report.replies]
        known, deaf = self.spec.templates, self.report.not_asked
        return ReplyCollector(self.roster, drawn, base, template, self._judged, known, deaf)

    def _judged(self, reply: Reply) -> Reply:
        found = self.rules.judge(reply, self.report.down.get(reply.camera, MessageSize()))
        return lost_on_the_way(self.rules.losses, self.report.round, found) if self.rules.losses else found

    def _propose(self, server: ServerState, states: Iterator[tuple[int, State, int]]) -> Proposal | None:
        """What the strategy would do with these cameras' states; None where there is not one. All are read, whatever
        the strategy leaves: they have been sent."""
        if (deltas := client_deltas(server, states)) is None:
            return None
        found: object = self.strategy.propose(server, deltas)
        for _ in states:
            pass
        if not isinstance(found, Proposal):
            raise TypeError(f"propose gives {type(found).__name__} in place of a Proposal")
        return found

    def _commit(self, server: ServerState, proposal: Proposal, base: str) -> Sums | None:
        """The update put out; what weights gain by it. None, and nothing changed, where it cannot be sent."""
        report, round = self.report, server.round
        delta, adapted = self.strategy.update_kind == "delta", changed_names(self.spec.deltas)
        fits = not delta or sorted(proposal.exact) == [*adapted] == [*changed_names(proposal.update)]
        totals = (total for sums in (proposal.exact, *proposal.sums.values()) for total in sums.values())
        if not fits or not all(isinstance(total, DeltaSum) for total in totals):
            check_proposal(self.strategy, proposal, adapted)
        try:
            frame = self._encode(proposal.update, base, round)
            # Cameras fold what the codec left of the update, so the server goes on from that too.
            decoded = self.strategy.decode_update(server, decode(frame, base=base, templates=self.spec.templates))
            after = self._with_personal_frames(server, self.strategy.commit(server, proposal, decoded))
        except RefusedFrameError as error:  # a mean beyond fp16, for one
            why = f"the update is refused: {error.reason}"
            report.replies = [replace(r, counted=False, reason=why) if r.counted else r for r in report.replies]
            return None
        self._downlink.updates.append(Update(round, frame))
        self.state = after
        report.aggregation_error = self._error(decoded, proposal.exact)
        return self.strategy.gained(server, after, decoded)

    def _with_personal_frames(self, before: ServerState, after: ServerState) -> ServerState:
        """The state after every personal part was made a frame; without those that the codec refuses, where the
        strategy can do without."""
        for part in {part.name: part for part in self._parts(after).values()}.values():
            try:
                self._personal_frame(part)
            except RefusedFrameError as error:
                withheld = self.strategy.withhold(before, after, part)
                if withheld is None:
                    raise
                logging.getLogger(__name__).warning("The part of %s %d is refused: %s", *part.name, error.reason)
                after = withheld
        return after

    def _parts(self, server: ServerState) -> dict[int, PersonalPart]:
        """Camera -> its personal part, for those that have one."""
        if not self.strategy.personal_kind:
            return {}
        found = {camera: self.strategy.personal(server, camera) for camera in self.roster.values()}
        return {camera: part for camera, part in found.items() if part is not None}

    def _personal_frame(self, part: PersonalPart) -> bytes:
        round, frame = self._personal_frames.get(part.name, (None, b""))
        if round != part.round:
            frame = self._encode(part.state(), personal_fingerprint(self.spec.base), part.round, *part.name)
            self._personal_frames[part.name] = part.round, frame
        return frame

    def _encode(self, state: State, base: str, round: int, *whose: str | int) -> bytes:
        rng = stream(self.state.seed, "codec", "server", round, *whose)
        known = () if self.spec.names_down else self.spec.templates
        how, share = self.codec, self.codec.topk_share
        return encode(
            state, dtype=how.dtype, base=base, rng=rng, topk_share=share, templates=known, entropy=how.entropy
        )

    def _error(self, decoded: Sums, exact: Sums) -> float:
        """How far what cameras decode is from the exact mean, relative (Frobenius); where a camera has the mean only
        together with its personal adapter, the root mean square over the cameras."""
        if self.strategy.personal_kind != "adapter":
            return relative_distance(decoded, exact)
        parts = self._parts(self.state).values()
        counts, frames = Counter(part.name for part in parts), {part.name: self._personal_frame(part) for part in parts}
        off = {name: relative_distance({**decoded, **self._decoded(frame)}, exact) for name, frame in frames.items()}
        return math.sqrt(sum(counts[name] * off[name] ** 2 for name in counts) / counts.total())

    def _decoded(self, frame: bytes) -> Sums:
        state = decode(frame, base=personal_fingerprint(self.spec.base), templates=self.spec.templates)
        return sum_states([(state, 1.0)], self.spec.shapes, self.spec.scale)


def _check_arrays(arrays: ArrayRecord, adapted: Collection[str]) -> ArrayRecord:
    """These arrays, where they hold every tensor that is adapted, or none at all; else ConfigError."""
    missing = [name for name in adapted if name not in arrays]
    if arrays and missing:
        raise ConfigError(
            f"Arrays to be kept current hold every tensor that is adapted; {missing[0]!r} is missing, of "
            f"{len(missing)}. Start with ArrayRecord(model.state_dict()) of the plain base, or with none."
        )
    return arrays


def _add_to_arrays(arrays: ArrayRecord, gained: Mapping[str, DeltaSum]) -> ArrayRecord:
    """W_{t+1} = W_t + D for each of the arrays, in its own dtype, as cameras `fold` it; what is not adapted stays."""
    after = ArrayRecord(dict(arrays))
    for name in arrays.keys() & gained.keys():
        before = arrays[name].numpy()
        total = np.add(before, gained[name].dense().numpy())
        after[name] = Array((np.maximum(total, 0) if is_variance(name) else total).astype(before.dtype))
    return after
