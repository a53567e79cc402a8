"""Rounds in which nothing crosses the radio: messages are how a simulation tells its cameras that a round goes by.
Knows rounds and replies; not frames."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid

from fed_lorac.aggregation.delta_sum import Sums
from fed_lorac.server.audience import Hearers, ToldAlike
from fed_lorac.server.fleet_strategy import FleetStrategy, Update
from fed_lorac.server.replies import Reply, read_metrics, train_metrics
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.strategy import Notes
from fed_lorac.server.traits import SilentStrategy
from fed_lorac.wire.billing import MessageSize

__all__ = ["SilentFleet"]

_ROUNDS, _HEARD = "rounds", "heard"  # notes: "made" -> rounds that counted, camera -> those in which it was reached


class SilentFleet(FleetStrategy):
    """A Flower Strategy for cameras on their own: nothing is sent, so nothing is billed.

    Any other method would tell a camera with each message the updates that it lacks, one a round: so they are counted
    for comparison.
    """

    bills = False

    def __init__(self, strategy: SilentStrategy, rules: FleetRules | None = None) -> None:
        super().__init__(strategy.source, rules or FleetRules())
        self.strategy = strategy
        self._notes: dict[str, dict[str, int]] = {}

    @property
    def sums(self) -> Mapping[str, Sums]:
        """None."""
        return {}

    @property
    def notes(self) -> Notes:
        """How many rounds counted, and for how many of them each camera was there."""
        return self._notes

    def resume(
        self, updates: Iterable[Update], confirmed: Mapping[int, int], sums: Mapping[str, Sums], notes: Notes
    ) -> None:
        """As `FleetStrategy`'s."""
        super().resume(updates, confirmed, sums, notes)
        self._notes = {kind: dict(found) for kind, found in notes.items()}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As `FleetStrategy`'s; nobody is asked where nobody trains."""
        messages = super().configure_train(server_round, arrays, config, grid)
        return messages if self.strategy.trains else []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hear how the local updates went; there is nothing to average. Where nobody trains, nobody is left out."""
        if not self.strategy.trains:
            self._end([replace(reply, counted=True, reason="") for reply in self.report.replies])
            return None, None
        said, nothing = self._first_of_each(replies), Reply(-1)
        found = [replace(said.get(reply.camera, nothing), camera=reply.camera) for reply in self.report.replies]
        counted = self._end([self.rules.judge(reply, MessageSize()) for reply in found])
        return None, train_metrics(counted) if counted else None

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As `FleetStrategy`'s."""
        found = super().aggregate_evaluate(server_round, replies)
        self._note_heard(self.evaluations)
        return found

    @property
    def latest(self) -> int:
        """As `SomeMeasured`'s: in rounds that counted."""
        return self._made

    def told(self, hearers: Hearers, config: ConfigRecord) -> ToldAlike:
        """What another method would have told them."""
        missed = self._made - hearers.heard
        fresh = missed == 1 and not self.report.skipped
        return ToldAlike(hearers.link, MessageSize(), missed, hearers.cameras, fresh)

    def messages(
        self, cameras: Collection[int], message_type: str, server_round: int, config: ConfigRecord
    ) -> list[Message]:
        """As `FleetStrategy`'s; what cameras would have been told is counted."""
        messages = super().messages(cameras, message_type, server_round, config)
        audience, notes = self.rules.audience, self._notes.get(_HEARD, {})
        heard = {k: notes.get(str(k), 0) if audience is None else audience.get(k) for k in cameras}
        missed = {camera: self._made - rounds for camera, rounds in heard.items()}
        self.report.caught_up.update(missed.values())
        for camera, updates in missed.items():
            self.report.updates_for[camera].append(updates)
        if message_type == MessageType.EVALUATE and not self.report.skipped:
            for camera in (camera for camera, updates in missed.items() if updates == 1):
                self.report.bring(camera, self.rules.link(camera), None, MessageSize())
        return messages

    @property
    def _made(self) -> int:
        return self._notes.get(_ROUNDS, {}).get("made", 0)

    def _note_heard(self, cameras: Iterable[int]) -> None:
        if self.rules.audience is None:
            self._notes.setdefault(_HEARD, {}).update((str(camera), self._made) for camera in cameras)
        else:
            for camera in cameras:
                self.rules.audience[camera] = self._made

    def _end(self, replies: list[Reply]) -> list[Reply]:
        """The round's replies are these; those that count are returned."""
        counted = [reply for reply in replies if reply.counted]
        self.report.replies, self.report.skipped = replies, not counted
        self._note_heard(reply.camera for reply in counted)
        if counted:
            self._notes[_ROUNDS] = {"made": self._made + 1}
        return counted

    def _first_of_each(self, replies: Iterable[Message]) -> dict[int, Reply]:
        """Camera -> how its training went, by its first reply."""
        found: dict[int, Reply] = {}
        for message in replies:
            camera = self.roster.get(message.metadata.src_node_id)
            if camera is not None and camera not in found:
                found[camera] = read_metrics(message, camera)
        return found
