"""Small whole runs whose messages are kept as they go by, both ways."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Message, MessageType
from small_runs import rounds_run
from torch import Tensor

from fed_lorac.client.agreement import frame_spec
from fed_lorac.config import Config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.grid.fleet_grid import FIRST_NODE, FleetGrid
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.simulation.engines import Fleet
from fed_lorac.wire.billing import read_frame
from fed_lorac.wire.frame import decode
from fed_lorac.wire.template import Template
from fed_lorac.wire.updates import PERSONAL_KEY, read_updates

__all__ = ["Overheard", "overheard"]


@dataclass
class Overheard:
    """What went by in a run: by kind and round what was sent, and what was answered."""

    sent: dict[tuple[str, int], list[Message]] = field(default_factory=dict)
    replies: dict[tuple[str, int], list[Message]] = field(default_factory=dict)
    templates: tuple[Template, ...] = ()

    def frames(self, round: int) -> dict[int, bytes]:
        """Camera -> the frame that it sent in a round."""
        return {
            _camera(reply.metadata.src_node_id): read_frame(reply.content.array_records["arrays"])
            for reply in self.replies[MessageType.TRAIN, round]
        }

    def states(self, round: int, tag: str) -> list[tuple[int, dict[str, Tensor], float]]:
        """(camera, state, weight) of a round's replies, in order; weights sum to one. `tag` is the base's then."""
        examples = [
            float(reply.content.metric_records["metrics"]["num-examples"])  # type: ignore[arg-type]
            for reply in self.replies[MessageType.TRAIN, round]
        ]
        frames = self.frames(round).items()
        return [
            (k, decode(frame, base=tag, templates=self.templates), n / sum(examples))
            for (k, frame), n in zip(frames, examples, strict=True)
        ]

    def updates(self) -> dict[int, bytes]:
        """Round -> the update that was sent of it."""
        return {
            round: frame
            for messages in self.sent.values()
            for message in messages
            for round, frame in read_updates(message.content)
        }

    def own(self, round: int) -> dict[int, bytes]:
        """Camera -> the part of the network that it was sent for itself with a round's evaluation."""
        return {
            _camera(message.metadata.dst_node_id): read_frame(message.content.array_records[PERSONAL_KEY])
            for message in self.sent[MessageType.EVALUATE, round]
        }


def overheard(config: Config, out: Path) -> Overheard:
    """Run a config in this process, into the folder `out`."""
    heard = Overheard(templates=frame_spec(build_experiment(config)).templates)
    with task_identity(), closing(Fleet(config)) as fleet:
        _listen(fleet.grid, heard)
        rounds_run(fleet.grid, config, out, memories=fleet)
    return heard


def _listen(grid: FleetGrid, heard: Overheard) -> None:
    carry = grid.send_and_receive

    def carry_and_keep(messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        for message in (sent := list(messages)):
            heard.sent.setdefault(_what(message), []).append(message)
        for reply, message in zip(carry(sent, timeout=timeout), sent, strict=True):
            heard.replies.setdefault(_what(message), []).append(reply)
            yield reply

    grid.send_and_receive = carry_and_keep  # type: ignore[method-assign]


def _what(message: Message) -> tuple[str, int]:
    config = message.content.config_records.get("config")
    return message.metadata.message_type, int(config["server-round"]) if config else 0  # type: ignore[arg-type]


def _camera(node: int) -> int:
    return node - FIRST_NODE
