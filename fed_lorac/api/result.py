"""A run out of its folder, as Python values: tables, a summary, networks. Knows a run's files; not how a run goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fed_lorac.api.tables import table
from fed_lorac.config import Config, load_config
from fed_lorac.errors import RunError
from fed_lorac.records.columns import Kind
from fed_lorac.records.ledger import CAMERAS_FILE, ROUNDS_FILE
from fed_lorac.records.run_folder import CONFIG_FILE, SUMMARY_FILE, columns_for, no_run
from fed_lorac.records.summaries import NO_BATCH_NORM, Summary, has_batch_norm, read_summary
from fed_lorac.runtime.files import home_expanded

if TYPE_CHECKING:
    import pandas as pd

    from fed_lorac.api.pixels import PixelNetwork
    from fed_lorac.models.weights import Checkpoint

__all__ = ["Run", "load_run"]


@dataclass(frozen=True, repr=False)
class Run:
    """A run in its folder. What was measured is read when it is first asked for, and kept."""

    path: Path

    @property
    def finished(self) -> bool:
        """Whether its results are written: it came to its end, or was interrupted between two rounds."""
        return (self.path / SUMMARY_FILE).is_file()

    @cached_property
    def config(self) -> Config:
        """The resolved config that it was made with."""
        return load_config(self.path / CONFIG_FILE)

    @cached_property
    def rounds(self) -> "pd.DataFrame":
        """A row a round: accuracies (0 to 1), bytes up and down, those of full fine-tuning, times (s); so far, where
        the run still goes on."""
        return table(self.path / ROUNDS_FILE, self._columns[0])

    @cached_property
    def cameras(self) -> "pd.DataFrame":
        """A row a camera and round that it was asked in: weather, link, what became of its reply, bytes, times (s)."""
        return table(self.path / CAMERAS_FILE, self._columns[1])

    @property
    def _columns(self) -> tuple[dict[str, Kind], dict[str, Kind]]:
        return columns_for(self.config)

    @cached_property
    def summary(self) -> Summary:
        """The whole run in plain numbers, as in summary.json. RunError where it is not finished."""
        self._check_finished("A summary")
        return read_summary(self.path)

    def model(self, camera: int | None = None) -> "PixelNetwork":
        """The adapted network in eval mode: images as bytes (N, H, W, 3) go in, logits (N, classes) come out.

        `camera`: with that camera's batch-norm statistics and personal parameters; None: what all cameras share, with
        the base's statistics.

        Raises:
            RunError: the run is not finished, or the camera left no statistics.
            ConfigError: the fleet has no such camera.
        """
        from fed_lorac.api.pixels import PixelNetwork  # noqa: PLC0415  (tables need no PyTorch)
        from fed_lorac.export.finished import finished_run, network_of  # noqa: PLC0415

        self._check_finished("A network")
        run = finished_run(self.path)
        return PixelNetwork(network_of(run, camera), run.normalization, run.classes)

    def adapter(self, camera: int | None = None) -> "Checkpoint":
        """What the run learnt, as `tensors` by name and the `metadata` that says what they belong to.

        "<conv>.A" and "<conv>.B" are factors, their scale folded in; "<layer>.weight" is a dense change. With `camera`
        its personal parameters and the change of its statistics are in it. `fed_lorac.adapters.deltas.fold` adds the
        tensors to the base. Raises as `model`.
        """
        from fed_lorac.export.adapter import adapter_of  # noqa: PLC0415
        from fed_lorac.export.finished import finished_run  # noqa: PLC0415

        self._check_finished("An adapter")
        return adapter_of(finished_run(self.path), camera)

    def __fspath__(self) -> str:
        return str(self.path)

    def _check_finished(self, what: str) -> None:
        if not self.finished:
            if not _began(self.path):
                raise no_run(self.path)
            raise RunError(
                f"{what} needs a finished run; {self.path} has no {SUMMARY_FILE} yet. Wait for it, or go on: "
                f"`fed-lorac run --resume {self.path}`, in Python fed_lorac.run(resume={str(self.path)!r})."
            )

    def __repr__(self) -> str:
        return f"<Run {self.path}: {_in_a_line(self.summary) if self.finished else 'not finished'}>"

    def _repr_html_(self) -> str | None:
        """The tables of the command line, for a notebook; None: nothing but the text."""
        from fed_lorac.reporting.notebook import run_as_html  # noqa: PLC0415

        return run_as_html(self.summary) if self.finished else None


def load_run(path: str | PathLike[str]) -> Run:
    """The run in a folder, finished or not.

    Raises:
        RunError: no run began there.
    """
    folder = home_expanded(Path(path)).absolute()
    if not _began(folder):
        raise no_run(folder)
    return Run(folder)


def _began(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (CONFIG_FILE, ROUNDS_FILE))


def _in_a_line(summary: Mapping[str, Any]) -> str:
    rounds = f"{summary['rounds']} round{'s' * (summary['rounds'] != 1)}" + ", interrupted" * summary["interrupted"]
    source, zero_byte, adapted = (_percent(summary[f"{arm}_accuracy"]) for arm in ("source", "zero_byte", "adapted"))
    zero_byte = zero_byte if has_batch_norm(summary) else f"has {NO_BATCH_NORM}"
    return (
        f"{summary['label']}, {rounds} on {summary['data']}; accuracy {adapted} (source {source}, zero-byte "
        f"{zero_byte}); {summary['total_bytes']:,} bytes"
    )


def _percent(accuracy: float | None) -> str:
    return "not measured" if accuracy is None else f"{accuracy:.1%}"
