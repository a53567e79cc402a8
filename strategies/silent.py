"""What a fleet reaches without a radio: the two baselines that every method is to be held against. Knows rounds and
replies; not frames.

Zero-byte: each camera re-estimates its batch-norm statistics, nothing is trained (Schneider et al. 2020, arXiv
2006.16971). Local-only: each camera trains its adapter on and on, and keeps it.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from fed_lorac.server.fleet_strategy import FleetStrategy
from fed_lorac.server.replies import Reply, heard, train_metrics
from fed_lorac.wire.billing import MessageSize

__all__ = ["LocalOnly", "ZeroByte"]


_ROUNDS, _HEARD = "rounds", "heard"  # what is noted: "made" -> rounds that counted, camera -> those it was there for


class _Silent(FleetStrategy):
    """Nothing is sent, so nothing is billed: messages are how a simulation tells its cameras that a round goes by.

    Any other method would tell a camera with each of them the updates that it lacks, one a round: so they are counted
    for comparison.
    """

    exact = False
    bills = False

    def _messages(
        self, cameras: Collection[int], message_type: str, server_round: int, config: ConfigRecord
    ) -> list[Message]:
        messages = super()._messages(cameras, message_type, server_round, config)
        heard = self.notes.get(_HEARD, {})
        self.report.caught_up.update(self._made - heard.get(str(camera), 0) for camera in cameras)
        return messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """As `FleetStrategy`'s."""
        found = super().aggregate_evaluate(server_round, replies)
        self._note_heard(self.evaluations)
        return found

    @property
    def _made(self) -> int:
        return self.notes.get(_ROUNDS, {}).get("made", 0)

    def _note_heard(self, cameras: Iterable[int]) -> None:
        self.notes.setdefault(_HEARD, {}).update((str(camera), self._made) for camera in cameras)

    def _end(self, replies: list[Reply]) -> list[Reply]:
        """The round's replies are these; those that count are returned."""
        counted = [reply for reply in replies if reply.counted]
        self.report.replies, self.report.skipped = replies, not counted
        self._note_heard(reply.camera for reply in counted)
        if counted:
            self.notes[_ROUNDS] = {"made": self._made + 1}
        return counted


class LocalOnly(_Silent):
    """Every drawn camera trains its adapter and keeps it; arguments as `FleetStrategy`'s."""

    source = "no federation: each camera's own adapter"

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hear how the turns went; there is nothing to average."""
        said = heard(replies, self.roster)
        nothing = Reply(-1)
        counted = self._end(
            [
                self.judge(replace(said.get(reply.camera, nothing), camera=reply.camera), MessageSize())
                for reply in self.report.replies
            ]
        )
        return None, train_metrics(counted) if counted else None


class ZeroByte(_Silent):
    """No camera trains: each measures its weather's batch-norm statistics, no more. Arguments as `FleetStrategy`'s."""

    source = "batch-norm adaptation, arXiv 2006.16971"

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nobody is asked."""
        super().configure_train(server_round, arrays, config, grid)
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Nobody answers, and nobody is left out."""
        self._end([replace(reply, counted=True, reason="") for reply in self.report.replies])
        return None, None
