"""A block app that misbehaves on demand, importable by workers. What cameras are to do, and what was done, is on the
disk, where every process sees it."""

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, MetricRecord, RecordDict

from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.grid.executor import Block

SEEN = "seen"


@dataclass(frozen=True)
class Naughty:
    """Answers with the camera, how often it was visited, and the block's size, unless it is told to do otherwise.

    A deed is "kill", "raise", "hang", "spin", "stop", "slow" or "few"; with " once" it is done the first time only,
    with " alone" or " together" in blocks of that kind only.
    """

    home: Path

    def told(self, deeds: Mapping[int, str]) -> "Naughty":
        """Forget what was done, and do this from now on."""
        for path in self.home.iterdir():
            path.unlink()
        (self.home / "deeds.json").write_text(json.dumps(deeds))
        return self

    def answer(self, requests: Sequence[ClientRequest], shared: Any) -> list[ClientReply]:
        self._note(f"{'-'.join(str(request.camera) for request in requests)} {os.getpid()} {id(shared)} {node_id()}")
        told = self.home / "deeds.json"
        deeds = {int(camera): deed for camera, deed in json.loads(told.read_text()).items()} if told.exists() else {}
        for request in requests:
            self._do(deeds.get(request.camera, ""), request.camera, len(requests))
        if any(deeds.get(request.camera) == "few" for request in requests):
            return []
        return [_answered(request, len(requests), shared) for request in requests]

    def attempts(self) -> list[list[int]]:
        """The blocks that were begun, sorted."""
        return sorted([int(camera) for camera in words[0].split("-")] for words in self.notes())

    def notes(self) -> list[list[str]]:
        """Of each attempt: its cameras, the process, what was shared, the node, when."""
        return sorted((path.name.split() for path in self.home.glob("* * *")), key=lambda words: int(words[-1]))

    def processes(self) -> set[str]:
        """Who has worked."""
        return {words[1] for words in self.notes()}

    def _note(self, what: str) -> None:
        (self.home / f"{what} {time.monotonic_ns()}").touch()

    def _do(self, deed: str, camera: int, size: int) -> None:
        what, _, when = deed.partition(" ")
        done = self.home / f"done-{camera}"
        if (when, size > 1) in (("alone", True), ("together", False)) or (when == "once" and done.exists()):
            return
        if what in DEEDS:
            done.touch()
            DEEDS[what]()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _raise() -> None:
    raise ValueError("the lens\nis dirty")


def _spin() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


DEEDS = {
    "kill": _kill,
    "raise": _raise,
    "hang": lambda: time.sleep(1e6),
    "spin": _spin,
    "stop": _stop,
    "slow": lambda: time.sleep(0.5),
}


def _answered(request: ClientRequest, size: int, shared: Any) -> ClientReply:
    before = request.state.metric_records.get(SEEN)
    count = int(before["n"]) + 1 if before else 1  # type: ignore[call-overload]
    said = {"camera": request.camera, "n": count, "size": size, "shared": int(shared or 0)}
    reply = Message(RecordDict({"metrics": MetricRecord(said)}), reply_to=request.message)
    return ClientReply(reply, RecordDict({SEEN: MetricRecord({"n": count})}))


def node_id() -> str:
    """Ray's id of this node; nothing outside of Ray."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else "here"


def threads(requests: Sequence[ClientRequest], shared: Any) -> list[ClientReply]:
    """An app's `answer` that tells PyTorch's threads in place of the block's size."""
    import torch

    return [_answered(request, torch.get_num_threads(), shared) for request in requests]


@dataclass(frozen=True)
class Threads:
    """An app of `threads`."""

    def answer(self, requests: Sequence[ClientRequest], shared: Any) -> list[ClientReply]:
        return threads(requests, shared)


def broken() -> Naughty:
    """A factory that fails."""
    raise OSError("no app today")


def request(camera: int, state: RecordDict | None = None) -> ClientRequest:
    message = Message(RecordDict({"config": ConfigRecord({"n": 1})}), 1000 + camera, MessageType.TRAIN)
    return ClientRequest(camera, message, state or RecordDict())


def blocks(cameras: int, size: int, shared: Any = None, pulled: list[int] | None = None) -> Iterator[Block]:
    """Blocks of `size` cameras each; which have been pulled is noted."""
    for first in range(0, cameras, size):
        if pulled is not None:
            pulled.append(first // size)
        yield Block(tuple(request(camera) for camera in range(first, min(first + size, cameras))), shared)


def said(replies: Iterable[list[ClientReply]]) -> dict[int, dict[str, Any] | str]:
    """Camera -> what it said, or why it did not, in the order of the replies."""
    return {
        reply.message.metadata.src_node_id - 1000: (
            dict(reply.message.content.metric_records["metrics"])
            if reply.message.has_content()
            else str(reply.message.error.reason)
        )
        for block in replies
        for reply in block
    }


def sizes(replies: Iterable[list[ClientReply]]) -> dict[int, int | str]:
    """Camera -> the size of the block in which it answered, or why it did not."""
    return {camera: words if isinstance(words, str) else words["size"] for camera, words in said(replies).items()}
