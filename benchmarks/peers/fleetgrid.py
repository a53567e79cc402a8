"""The scenario under FleetGrid: what `fed-lorac run` runs, with a watch that notes times. Knows settings and the clock;
not what a run computes."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed_lorac.api.start import prepare
from fed_lorac.records.ledger import Row
from fed_lorac.reporting.watch import Watch
from peers.settings import RESULT, Found, environment, settings_of_this_run


def run() -> None:
    """The whole arm; the run's folder stays beside its result."""
    out, clock = Path(os.environ[RESULT]).with_suffix(""), _Clock()
    with prepare("fog_snow_noise", settings_of_this_run().fleetgrid, out=out) as start:
        start.run(clock)
    clock.found().write()


class _Clock(Watch):
    """Notes how long each round's training took, its way down included, and how long measuring took."""

    def __init__(self) -> None:
        self._what, self._began, self._waits_for = "", 0.0, 0
        self._measuring = 0.0  # in this round
        self._train_s: list[float] = []
        self._evaluation_s = 0.0
        self._rows: list[Row] = []
        self._summary: Mapping[str, Any] = {}

    def phase(self, what: str, total: int) -> None:
        self._what, self._began, self._waits_for, self._measuring = what, time.perf_counter(), total, 0.0

    def reply(self) -> None:
        self._waits_for -= 1
        if not self._waits_for and self._what in {"base", "evaluate"}:
            self._measuring = time.perf_counter() - self._began
            self._evaluation_s += self._measuring if self._what == "base" else 0.0

    def round(self, row: Row, of: int) -> None:
        measured = row["accuracy"] is not None
        self._rows.append(row)
        self._evaluation_s += self._measuring if measured else 0.0
        self._train_s.append(row["seconds"] - (self._measuring if measured else 0.0))

    def ended(self, summary: Mapping[str, Any]) -> None:
        self._summary = summary

    def found(self) -> Found:
        """What came of the run; RuntimeError where a camera was left out."""
        if failed := sum(row["cameras_left_out"] for row in self._rows):
            raise RuntimeError(f"{failed} turns were left out: {self._rows}")
        first = self._rows[0]
        return Found(
            train_seconds=self._train_s,
            evaluation_seconds=self._evaluation_s,
            trainable=first["uplink_payload_bytes"] // first["cameras_counted"] // 4,  # float32
            source=self._summary["source_accuracy"],
            zero_byte=self._summary["zero_byte_accuracy"],
            accuracy=self._summary["adapted_accuracy"],
            accuracy_clean=self._summary["clean_accuracy"]["adapted"],
            environment=environment("flwr", "ray"),
        )
