"""FleetStrategy: which cameras are sampled, which updates each still lacks, and how many bytes those take. Knows
Flower's Strategy, rosters and updates as frames; not how an update came about, nor what cameras' replies hold.

One round: the drawn cameras are asked to train; what their replies come to, if anything, goes to EVERY camera at once,
with the round's evaluation. A camera that did not confirm an update gets it again with its next message, and so catches
up.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as FlowerStrategy

from fed_lorac.adapters.settled import NOTHING, Settled
from fed_lorac.aggregation.delta_sum import Sums
from fed_lorac.errors import RunError
from fed_lorac.server.audience import Audience, Hearers, ToldAlike
from fed_lorac.server.registration import Numbered, register_nodes
from fed_lorac.server.replies import Reply, RoundReport, mean_metrics
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.some_measured import SomeMeasured
from fed_lorac.server.strategy import Notes
from fed_lorac.server.unheard import heard_alone
from fed_lorac.wire.billing import MessageSize, frame_record, is_billed, message_bytes
from fed_lorac.wire.frame import inspect
from fed_lorac.wire.updates import PERSONAL_KEY, update_key, whole_model_key

__all__ = ["Downlink", "EncodeGlobalModel", "FleetStrategy", "Update"]

CONFIG_KEY = "config"  # Flower's own name in a message


@dataclass(frozen=True)
class Update:
    """What a round added to the base, as it crosses the radio."""

    round: int
    frame: bytes = field(repr=False)


EncodeGlobalModel = Callable[[Sequence[Update]], bytes]
"""All updates so far -> the global model that they lead to, as one frame."""


@dataclass(frozen=True)
class DownlinkMessage:
    """A message's content, its size, how many updates it makes up for, and the personal update in it."""

    content: RecordDict
    size: MessageSize
    updates: int  # be they in it or in a whole global model
    personal: Update | None = None


@dataclass
class Downlink:
    """All updates so far, and the last round that each camera says it has folded (0 for one that said nothing).

    With `encode_global_model`, a camera that missed several updates is sent the global model itself where that is
    smaller. `personal_update` says what a camera is to have beside it, and since which round; a camera that has not
    confirmed that round is sent it.
    """

    updates: list[Update] = field(default_factory=list)
    confirmed: dict[int, int] | Audience = field(default_factory=dict)
    encode_global_model: EncodeGlobalModel | None = None
    personal_update: Callable[[int], Update | None] = lambda camera: None
    _base: tuple[int, bytes] | None = field(default=None, init=False, repr=False)

    @property
    def folded_round(self) -> int:
        """The round of the last update, 0 before the first."""
        return self.updates[-1].round if self.updates else 0

    def confirm(self, camera: int, folded_round: object) -> None:
        """Take a camera's word for what it has folded, where it can be true."""
        if isinstance(folded_round, int) and 0 <= folded_round <= self.folded_round:
            self.confirmed[camera] = folded_round

    def messages_down(
        self, cameras: Iterable[int], config: ConfigRecord, message_type: str
    ) -> dict[int, DownlinkMessage]:
        """Each camera's message: the updates it has not confirmed and the config.

        Cameras that lack the same share one message_down, built and measured once.
        """
        lack = {camera: self._lacking(camera, self.confirmed.get(camera, 0)) for camera in cameras}
        made = {lacks: self.message_down(*lacks, config, message_type) for lacks in set(lack.values())}
        return {camera: made[lacks] for camera, lacks in lack.items()}

    def _lacking(self, camera: int, folded: int) -> tuple[int, Update | None]:
        personal = self.personal_update(camera)
        return folded, personal if personal is not None and personal.round > folded else None

    def message_down(
        self, folded: int, personal: Update | None, config: ConfigRecord, message_type: str
    ) -> DownlinkMessage:
        """What a camera is sent that has folded so many rounds, and is to have this beside them."""
        missed = [update for update in self.updates if update.round > folded]
        frames = self._smallest(missed) | ({} if personal is None else {PERSONAL_KEY: personal.frame})
        content = RecordDict({key: frame_record(frame) for key, frame in frames.items()})
        content[CONFIG_KEY] = config
        payload = sum(inspect(frame).payload_bytes for frame in frames.values())
        size = sum(map(len, frames.values()))
        weight = MessageSize(payload, size, message_bytes(content, message_type))
        return DownlinkMessage(content, weight, len(missed), personal)

    def _smallest(self, missed: Sequence[Update]) -> dict[str, bytes]:
        """Frames by key: the updates that were missed, or the global model that they lead to, whichever is smaller."""
        updates = {update_key(update.round): update.frame for update in missed}
        if self.encode_global_model is None or len(missed) < 2:  # one update is all there is to tell
            return updates
        if self._base is None or self._base[0] != self.folded_round:
            self._base = self.folded_round, self.encode_global_model(self.updates)
        round, frame = self._base
        return {whole_model_key(round): frame} if len(frame) < sum(map(len, updates.values())) else updates


class FleetStrategy(SomeMeasured, FlowerStrategy):
    """A Flower Strategy that any ServerApp can `start`; what it makes of replies is for `aggregate_train`.

    What a camera is sent: the updates it has not confirmed (`wire.updates.unfolded` reads them), or the
    global model itself in the stead of several, its personal part of the network where the strategy has one for it, and
    Flower's record "config" with `server-round`. What it answers when asked to evaluate: a MetricRecord with
    `num-examples`, `folded-round` (the last round it has folded) and metrics of its own.

    Args:
        source: where the strategy is from, for the log.
        rules: who takes part.
        encode_global_model: all updates so far -> the global model as one frame, as
            `client.state.encode_global_model` makes it: sent to a camera that missed several updates, where it
            is smaller than they are; None: updates alone.
    """

    settled: Settled = NOTHING
    """What it has settled of adapters, in a round of its own; nothing: it has not, or never does."""

    bills: ClassVar[bool] = True
    """Whether its messages cross a radio."""

    wait_s = 120.0
    """How long a round waits for a quorum of nodes to register, where there is no roster."""

    def __init__(self, source: str, rules: FleetRules, encode_global_model: EncodeGlobalModel | None = None) -> None:
        self.source, self.rules, self.quorum = source, rules, max(1, rules.quorum)
        self.roster: Mapping[int, int] = dict(rules.roster or {})
        self._registers = False
        self._downlink = Downlink([], {} if rules.audience is None else rules.audience, encode_global_model)
        self._downlink.personal_update = self.personal_update
        self._arrays = ArrayRecord()
        self.evaluations: dict[int, RecordDict] = {}
        self.report = RoundReport(0, [])

    @property
    @abstractmethod
    def sums(self) -> Mapping[str, Sums]:
        """What the server keeps beside its updates, kind -> tensor name -> sum: for a checkpoint."""

    @property
    @abstractmethod
    def notes(self) -> Notes:
        """Plain numbers that it keeps, kind -> name -> number: for a checkpoint."""

    def resume(
        self, updates: Iterable[Update], confirmed: Mapping[int, int], sums: Mapping[str, Sums], notes: Notes
    ) -> None:
        """Go on where another object of this class stood: its `updates`, what was `confirmed`, its `sums` and
        `notes`."""
        heard = self.rules.audience
        self._downlink = replace(self._downlink, updates=list(updates), confirmed=heard or dict(confirmed))

    @property
    def updates(self) -> list[Update]:
        """Every update so far, the first round's first."""
        return self._downlink.updates

    @property
    def confirmed(self) -> dict[int, int]:
        """Camera -> the last round that it says it has folded; none where an audience says it of all."""
        return {} if isinstance(self._downlink.confirmed, Audience) else self._downlink.confirmed

    @property
    def folded_round(self) -> int:
        """The round of the last update, 0 before the first."""
        return self._downlink.folded_round

    def personal_update(self, camera: int) -> Update | None:
        """The part of the network that this camera does not share with all, and the round it is of; None: none."""
        return None

    def cluster_of(self, camera: int) -> int | None:
        """The cluster that a camera shares a part of the network with; None: none, or not yet."""
        return None

    def not_in_updates(self) -> Sums:
        """What the global model has that no update holds, by tensor."""
        return {}

    def block_key(self, camera: int) -> int:
        """Cameras of one key are asked next to one another: those that can train side by side."""
        return 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the round's drawn cameras to train; each has its own global model, so `arrays` are not sent."""
        if server_round <= self.folded_round:
            raise RunError(
                f"Rounds go up; round {server_round} was asked for after round {self.folded_round}. "
                "Cameras have folded those: make a new strategy for a new run."
            )
        self._arrays = arrays
        everyone = self.everyone(grid)
        cameras = list(everyone if self.rules.draw is None else self.rules.draw(server_round))
        known = everyone if isinstance(self.roster, Numbered) else set(everyone)
        if strangers := sorted(camera for camera in cameras if camera not in known):
            raise RunError(f"A round draws cameras of its roster, {len(everyone)} here; it drew {strangers[:5]} too.")
        cameras = sorted(cameras, key=self.block_key)
        self.report = RoundReport(server_round, [Reply(camera) for camera in cameras])
        return self.messages(cameras, MessageType.TRAIN, server_round, config)

    @abstractmethod
    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the round's replies come to."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send every camera what it has not confirmed, this round's update first of all, and ask it to evaluate; or,
        where there is an audience, have that hear it."""
        self.evaluations = {}
        away = self.rules.away(server_round) if self.rules.away and server_round else ()
        if (audience := self.rules.audience) is not None:
            return self.messages_to_some(audience, away, server_round, config)
        cameras = [camera for camera in self.everyone(grid) if camera not in away]
        return self.messages(cameras, MessageType.EVALUATE, server_round, config)

    @property
    def latest(self) -> int:
        """As `SomeMeasured`'s: in rounds."""
        return self.folded_round

    def told(self, hearers: Hearers, config: ConfigRecord) -> ToldAlike:
        """As `SomeMeasured`'s."""
        down = self._downlink.message_down(hearers.heard, None, config, MessageType.EVALUATE)
        fresh = down.updates == 1 and self.folded_round == config["server-round"]
        return ToldAlike(hearers.link, down.size, down.updates, hearers.cameras, fresh)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The examples-weighted mean of the cameras' metrics; each camera's own are kept in `evaluations`."""
        for message in replies:
            camera = self.roster.get(message.metadata.src_node_id)
            if camera is not None and message.has_content():
                self.evaluations[camera] = message.content
                for metrics in message.content.metric_records.values():
                    self._downlink.confirm(camera, metrics.get("folded-round"))
        return mean_metrics(self.evaluations[camera] for camera in sorted(self.evaluations))

    def summary(self) -> None:
        """Say in Flower's log what strategy this is."""
        logging.getLogger("flwr").info("\t└──> %s, quorum %d", self.source, self.quorum)

    def everyone(self, grid: Grid) -> Collection[int]:
        """Every camera of the roster; where none was given, nodes become cameras as they register."""
        if self._registers or not self.roster:
            self._registers = True
            self.roster = register_nodes(grid, self.roster, at_least=self.quorum, wait_s=self.wait_s)
        return self.roster.inverse.keys() if isinstance(self.roster, Numbered) else sorted(self.roster.values())

    def messages(
        self, cameras: Collection[int], message_type: str, server_round: int, config: ConfigRecord
    ) -> list[Message]:
        """What each of these lacks, and the config; billed."""
        config["server-round"] = server_round
        roster, report = self.roster, self.report
        nodes = roster.inverse if isinstance(roster, Numbered) else {camera: node for node, camera in roster.items()}
        messages_down = self._downlink.messages_down(cameras, config, message_type)
        for camera, message_down in messages_down.items():
            report.caught_up[message_down.updates] += 1
            report.updates_for[camera].append(message_down.updates)
            if self.bills and is_billed(message_type, message_down.updates):
                report.down[camera] = report.down.get(camera, MessageSize()) + message_down.size
        if message_type == MessageType.EVALUATE and self.folded_round == server_round:
            for camera, message_down in messages_down.items():
                if message_down.updates == 1:
                    report.bring(camera, self.rules.link(camera), message_down.personal, message_down.size)
        if self.rules.losses:
            messages_down = heard_alone(self.rules.losses, report, self.rules.link, messages_down, message_type)
        return [
            Message(message_down.content, dst_node_id=nodes[camera], message_type=message_type)
            for camera, message_down in messages_down.items()
        ]
