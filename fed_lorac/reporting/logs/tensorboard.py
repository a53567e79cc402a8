"""A run in TensorBoard's event files: `RUN/tensorboard/`. Knows that library; not what a run computes."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fed_lorac.records.ledger import Row
from fed_lorac.reporting.logs.numbers import of_round, of_summary
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.settings import Scalar

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TensorBoard"]

_COMPARED = (
    "accuracy/accuracy",
    "accuracy/accuracy_clean",
    "bytes/uplink_message_bytes",
    "bytes/downlink_message_bytes",
)
"""Columns of the table of hyperparameters."""


class TensorBoard(Watch):
    """Event files in the run's folder, for `tensorboard --logdir`."""

    source = "https://www.tensorflow.org/tensorboard"

    def __init__(self) -> None:
        self._config: Mapping[str, Scalar] = {}
        self._folder, self._before, self._last = Path(), 0, 0

    def begun(self, config: Mapping[str, Scalar], folder: Path, *, goes_on: bool) -> None:
        """The writer waits for the first round: until then it may turn out that the run goes on."""
        self._config, self._folder = config, folder / "tensorboard"

    def resumed(self, rounds: int) -> None:
        """What an earlier process wrote of later rounds will be hidden."""
        self._before = self._last = rounds

    def round(self, row: Row, of: int) -> None:
        """A scalar a column."""
        self._last = row["round"]
        self._write(of_round(row))
        self._writer.flush()

    def ended(self, summary: Mapping[str, Any]) -> None:
        """A scalar a number, at the last round's step."""
        self._write(of_summary(summary))

    def closed(self) -> None:
        """All is on the disk."""
        if "_writer" in vars(self):
            self._writer.close()

    def _write(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, self._last)

    @cached_property
    def _writer(self) -> "SummaryWriter":
        """Opened with the config as the hyperparameters; events of an earlier process after `_before` are hidden."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415

        writer = SummaryWriter(str(self._folder), purge_step=self._before + 1)
        file: Any = writer.file_writer
        for said in hparams(dict(self._config), dict.fromkeys(_COMPARED, 0.0)):
            file.add_summary(said)
        return writer
