"""A run in MLflow. Knows that library; not what a run computes.

Where it goes is said in the library's own words: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME (else fed-lorac), ...
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed_lorac.records.ledger import Row
from fed_lorac.registry import load
from fed_lorac.reporting.logs.numbers import of_round, of_summary
from fed_lorac.reporting.logs.wandb import kept
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.files import write_text
from fed_lorac.runtime.settings import Scalar

__all__ = ["MLflow"]

_AT_ONCE = 100
"""Parameters, and tags, that MLflow takes in one call."""


class MLflow(Watch):
    """A run of MLflow's, through its client: no run that is active in this process is touched."""

    source = "https://mlflow.org/docs/latest"

    def __init__(self) -> None:
        self._client: Any = None
        self._run, self._status, self._last = "", "FAILED", 0

    def begun(self, config: Mapping[str, Scalar], folder: Path, *, goes_on: bool) -> None:
        """One that goes on keeps its id. Its parameters stay, as MLflow has it: what differs is a tag."""
        self._client = load("mlflow:MlflowClient")()
        self._run = kept(folder, "mlflow-id.txt", goes_on=goes_on) or self._new(folder)
        write_text(folder / "mlflow-id.txt", self._run + "\n")
        self._client.update_run(self._run, status="RUNNING")
        began = self._client.get_run(self._run).data.params
        self._tell("params", {key: value for key, value in config.items() if key not in began})
        self._tell("tags", {key: value for key, value in config.items() if began.get(key, str(value)) != str(value)})

    def resumed(self, rounds: int) -> None:
        """The summary belongs to the last round that there is."""
        self._last = rounds

    def round(self, row: Row, of: int) -> None:
        """A step a round."""
        self._last = row["round"]
        self._write(of_round(row))

    def ended(self, summary: Mapping[str, Any]) -> None:
        """A metric a number, at the last round's step."""
        self._write(of_summary(summary))
        self._status = "KILLED" if summary["interrupted"] else "FINISHED"

    def closed(self) -> None:
        """The run has ended there too."""
        if self._run:
            self._client.set_terminated(self._run, self._status)

    def _new(self, folder: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "fed-lorac"
        there = self._client.get_experiment_by_name(name)
        experiment = there.experiment_id if there else self._client.create_experiment(name)
        return str(self._client.create_run(experiment, run_name=folder.name).info.run_id)

    def _write(self, numbers: Mapping[str, float]) -> None:
        metric, now = load("mlflow.entities:Metric"), int(time.time() * 1000)
        self._client.log_batch(self._run, [metric(name, value, now, self._last) for name, value in numbers.items()])

    def _tell(self, kind: str, values: Mapping[str, Scalar]) -> None:
        """The config, a part at a time."""
        entity = load(f"mlflow.entities:{'Param' if kind == 'params' else 'RunTag'}")
        said = [entity(key, str(value)) for key, value in values.items()]
        for first in range(0, len(said), _AT_ONCE):
            self._client.log_batch(self._run, **{kind: said[first : first + _AT_ONCE]})
