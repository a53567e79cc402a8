"""Logs of somebody else's, for `run.log = "own_logs:..."`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed_lorac.records.ledger import Row
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.settings import Scalar

__all__ = ["Failing", "Told"]


class Told(Watch):
    """Writes what it is told, a line a call, beside the run's own files."""

    def __init__(self, name: str = "told") -> None:
        self.name, self.path = name, Path()

    def begun(self, config: Mapping[str, Scalar], folder: Path, *, goes_on: bool) -> None:
        self.path = folder / f"{self.name}.jsonl"
        self.say("begun", config["run.rounds"], goes_on)

    def resumed(self, rounds: int) -> None:
        self.say("resumed", rounds)

    def round(self, row: Row, of: int) -> None:
        self.say("round", row)

    def ended(self, summary: Mapping[str, Any]) -> None:
        self.say("ended", summary["rounds"], summary["interrupted"])

    def closed(self) -> None:
        self.say("closed")

    def say(self, *what: object) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")


class Failing(Told):
    """Its server goes away in the second round."""

    def round(self, row: Row, of: int) -> None:
        if row["round"] == 2:
            raise ConnectionError("nobody there")
        super().round(row, of)
