"""A run in Weights & Biases. Knows that library; not what a run computes.

Where it goes is said in the library's own words: WANDB_PROJECT (else fed-lorac), WANDB_ENTITY, WANDB_MODE, ...
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from fed_lorac.records.ledger import Row
from fed_lorac.registry import load
from fed_lorac.reporting.logs.numbers import of_round, of_summary
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.files import write_text
from fed_lorac.runtime.settings import Scalar

__all__ = ["WeightsAndBiases", "kept"]


def kept(folder: Path, name: str, *, goes_on: bool) -> str:
    """The name under which a library knows the run of this folder, from an earlier process; "" where it is new."""
    if goes_on:
        with suppress(OSError):
            return (folder / name).read_text(encoding="utf-8").strip()
    return ""


class WeightsAndBiases(Watch):
    """A run of wandb's, whose files are in the run's folder."""

    source = "https://docs.wandb.ai"

    def __init__(self) -> None:
        self._run: Any = None
        self._exit_code = 1

    def begun(self, config: Mapping[str, Scalar], folder: Path, *, goes_on: bool) -> None:
        """One that goes on keeps its name there, so that its rounds stand behind the earlier ones."""
        name = kept(folder, "wandb-id.txt", goes_on=goes_on) or uuid4().hex[:12]
        write_text(folder / "wandb-id.txt", name + "\n")
        self._run = load("wandb:init")(
            project=os.environ.get("WANDB_PROJECT") or "fed-lorac",
            id=name,
            name=folder.name,
            dir=folder,
            config=dict(config),
            resume="allow",
            reinit="create_new",
            settings=load("wandb:Settings")(console="off"),
        )

    def round(self, row: Row, of: int) -> None:
        """A step a round."""
        self._run.log(of_round(row), step=row["round"])

    def ended(self, summary: Mapping[str, Any]) -> None:
        """The numbers of the summary as those of the run."""
        self._run.summary.update(of_summary(summary))
        self._exit_code = int(summary["interrupted"])

    def closed(self) -> None:
        """All is sent, or on the disk."""
        if self._run is not None:
            self._run.finish(exit_code=self._exit_code)
