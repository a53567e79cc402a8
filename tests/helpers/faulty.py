"""A fleet whose cameras, in one round, do what cameras and radios do: real kills, hangs, frames that arrive wrong."""

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from flwr.app import Message
from small_runs import rounds_run
from torch import Tensor

from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.handlers import FleetApp
from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.client.state import GlobalModel
from fed_lorac.config import Config
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.runtime.settings import Scalar
from fed_lorac.simulation.engines import Fleet
from fed_lorac.wire.billing import frame_record, read_frame
from fed_lorac.wire.frame import decode, encode
from fed_lorac.wire.updates import global_fingerprint

Faults = Mapping[int, str]
"""Camera -> what goes wrong with it."""


class FaultyApp(FleetApp):
    """Our app, but some cameras go wrong in round `round`. `marks`: a folder that outlives a process."""

    def __init__(self, flat: Mapping[str, Scalar], faults: Faults, round: int, marks: Path) -> None:
        super().__init__(flat)
        self._faults, self._round, self._marks = faults, round, marks

    def answer(self, requests: Sequence[ClientRequest], shared: GlobalModel) -> list[ClientReply]:
        faults = [self._fault(request) for request in requests]
        for request, fault in zip(requests, faults, strict=True):
            if fault in BEFORE:
                BEFORE[fault](request.camera, self._marks)
        replies = super().answer(requests, shared)
        for reply, fault in zip(replies, faults, strict=True):
            if fault in WRONG:
                base = self._experiment.base.fingerprint
                sent = read_frame(reply.message.content.array_records["arrays"])
                state = decode(sent, base=shared.fingerprint(base), templates=frame_spec(self._experiment).templates)
                named = encode(state, dtype="fp32", base=shared.fingerprint(base))
                wrong = WRONG[fault](named, base, shared.round)
                reply.message.content["arrays"] = frame_record(wrong)
        return replies

    def _fault(self, request: ClientRequest) -> str:
        trains = request.message.metadata.message_type == "train"
        return self._faults.get(request.camera, "") if trains and _round(request.message) == self._round else ""


def _round(message: Message) -> int:
    return int(message.content.config_records["config"]["server-round"])  # type: ignore[call-overload]


def go(config: Config, out: Path, faults: Faults, *, round: int = 1) -> Path:
    """A whole run of that fleet."""
    marks = out / "marks"
    marks.mkdir(parents=True)
    app = partial(FaultyApp, config.to_flat(), faults, round, marks)
    with task_identity(), closing(Fleet(config, app)) as fleet:
        rounds_run(fleet.grid, config, out, memories=fleet)
    return out


def _die(camera: int, marks: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_once(camera: int, marks: Path) -> None:
    if not (mark := marks / f"died-{camera}").exists():
        mark.touch()
        _die(camera, marks)


def _raise(camera: int, marks: Path) -> None:
    raise ValueError(f"camera {camera} has a cracked lens")


BEFORE: dict[str, Callable[[int, Path], None]] = {
    "dies": _die,
    "dies once": _die_once,
    "hangs": lambda camera, marks: time.sleep(1e6),
    "raises": _raise,
    "dawdles": lambda camera, marks: time.sleep(0.2 * (3 - camera % 4)),
}


def _changed(frame: bytes, base: str, round: int, change: Callable[[Tensor], Tensor]) -> bytes:
    now = global_fingerprint(base, round)
    state = decode(frame, base=now)
    return encode(state | {"fc.weight": change(state["fc.weight"])}, dtype="fp32", base=now)


def _flipped(frame: bytes, base: str, round: int) -> bytes:
    middle = len(frame) // 2
    return frame[:middle] + bytes([frame[middle] ^ 0x10]) + frame[middle + 1 :]


def _with_nan(frame: bytes, base: str, round: int) -> bytes:
    from frames import sealed  # as a sender does that does not look at its numbers

    return sealed(frame[: -4 - 4] + np.float32(np.nan).tobytes())


def _stale(frame: bytes, base: str, round: int) -> bytes:
    return encode(decode(frame, base=global_fingerprint(base, round)), dtype="fp32", base=f"{base}@77")


WRONG: dict[str, Callable[[bytes, str, int], bytes]] = {
    "truncated": lambda frame, base, round: frame[:-9],
    "flipped": _flipped,
    "nan": _with_nan,
    "resized": lambda frame, base, round: _changed(frame, base, round, lambda w: w[:-1]),
    "huge": lambda frame, base, round: _changed(frame, base, round, lambda w: torch.full_like(w, 1e38)),
    "stale": _stale,
}
