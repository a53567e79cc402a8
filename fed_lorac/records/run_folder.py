"""A run's directory: what a run leaves behind, whole at any moment. Knows files; not how they came about."""

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fed_lorac.config import Config, Sampled, load_config
from fed_lorac.config.resumed import CONFIG_FILE
from fed_lorac.errors import FedLoracError, RunError, UnreadableError
from fed_lorac.records.checkpoint import FOLDER, Checkpoint, Checkpoints, has_checkpoints
from fed_lorac.records.columns import Kind, columns_of
from fed_lorac.records.ledger import CAMERAS_FILE, ROUNDS_FILE, Ledger, read_rows
from fed_lorac.runtime.files import clear_litter, home_expanded, read_bytes, write_text, writing
from fed_lorac.runtime.lock import FolderLock, check_unlocked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ADAPTER_FILE",
    "CAMERA_TENSORS_FILE",
    "CONFIG_FILE",
    "FILES",
    "MODEL_FILE",
    "SUMMARY_FILE",
    "TENSOR_FILES",
    "RunFolder",
    "can_go_on",
    "check_new",
    "columns_for",
    "folder_for",
    "meant",
    "no_run",
    "summary_in",
]

SUMMARY_FILE = "summary.json"
TENSOR_FILES = MODEL_FILE, ADAPTER_FILE, CAMERA_TENSORS_FILE = (
    "model.safetensors",
    "adapter.safetensors",
    "cameras.safetensors",
)
FILES = (SUMMARY_FILE, *TENSOR_FILES, CAMERAS_FILE, ROUNDS_FILE, CONFIG_FILE)
"""What a run leaves beside its checkpoints, in the order in which it goes where another takes its place."""


@dataclass
class RunFolder:
    """`config.toml`, `rounds.jsonl` and `cameras.jsonl` as the run goes; results at its end. Each appears whole."""

    path: Path
    ledger: Ledger = field(repr=False)
    checkpoints: Checkpoints = field(repr=False)
    lock: FolderLock = field(repr=False)
    resumes: bool = False
    """Whether a run that began here earlier goes on."""

    @classmethod
    @contextmanager
    def owned(cls, path: Path, config: Config, *, resume: bool = False, overwrite: bool = False) -> Iterator[Self]:
        """A run's folder, new or with `resume` that of a run to go on with, and no other process's meanwhile.

        A run that ends before it has measured anything leaves no files. `overwrite` removes a run that is there.

        Raises:
            RunError: another process holds the folder, it holds a run already (so none is overwritten), or it cannot be
                written.
        """
        with FolderLock(path) as lock:
            if resume:
                clear_litter(path)
            else:
                if overwrite:
                    _remove_run(path)
                _check_new(path, config)
            ledger = Ledger(path, **_columns_by(config))
            folder = cls(path, ledger, Checkpoints(path), lock, resume)
            own = [ROUNDS_FILE, CAMERAS_FILE, *([] if (path / CONFIG_FILE).exists() else [CONFIG_FILE])]
            try:
                if not resume:  # else once it is known that the run may go on with this config
                    folder.write_config(config)
                yield folder
            finally:
                ledger.close()
                if not resume and not _holds_a_run(path):
                    for name in own:
                        (path / name).unlink(missing_ok=True)

    def write_config(self, config: Config) -> None:
        """The config that the run is made with from now on."""
        write_text(self.path / CONFIG_FILE, config.to_toml())

    def newest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint that can be used; None where the run was killed before it had measured anything.

        Raises:
            RunError: there are checkpoints and none can be used, or rounds were measured and there is none.
        """
        kept = self.checkpoints.newest()
        if kept is None and (rows := len(read_rows(self.path / ROUNDS_FILE).rows)):
            raise RunError(
                f"A run goes on from a checkpoint; {self.path} has {rows} rounds and none (was "
                "run.fleet.checkpoint_every 0, or is the folder a copy without checkpoints/?). Put them back, or "
                "start the run in another folder."
            )
        return kept

    def finish(
        self,
        summary: Mapping[str, Any],
        *,
        adapter: "Mapping[str, Tensor]",
        model: "Mapping[str, Tensor]",
        cameras: "Mapping[str, Tensor]",
        metadata: Mapping[str, str],
    ) -> None:
        """Write the results: tensors first, and before them an earlier summary goes, so that a summary never speaks of
        other files than those that are there."""
        from fed_lorac.runtime.tensor_files import write_tensors  # noqa: PLC0415  (a first look at a folder needs no PyTorch)

        self.lock.check()
        with writing(self.path):
            (self.path / SUMMARY_FILE).unlink(missing_ok=True)
        write_tensors(self.path / ADAPTER_FILE, adapter, metadata)
        write_tensors(self.path / MODEL_FILE, model, metadata)
        write_tensors(self.path / CAMERA_TENSORS_FILE, cameras, metadata)
        write_text(self.path / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")


def columns_for(config: Config) -> tuple[dict[str, Kind], dict[str, Kind]]:
    """The columns of rounds and of cameras that a run of this config writes: for its readers, the writer's own."""
    return columns_of(**_columns_by(config))


def _columns_by(config: Config) -> dict[str, bool]:
    return {
        "guesses": config.local.guesses,
        "chooses": config.adapter.chooses,
        "together": _hears_together(config),
        "multicasts": config.fleet.multicasts,
        "loses": config.fleet.loses,
    }


def _hears_together(config: Config) -> bool:
    """Whether cameras that share images hear updates together, where a sample of them is measured."""
    sample = config.run.table(Sampled).evaluate_cameras
    return config.fleet.deal == "overlapping" and 0 < sample < config.fleet.cameras


def check_new(path: Path, config: Config, *, overwrite: bool = False) -> None:
    """Raise `RunError` where a new run of this config cannot have the folder; a first look that costs no time."""
    check_unlocked(path)
    if not (overwrite and _began_here(path)):
        _check_new(path, config)


def _remove_run(path: Path) -> None:
    """Remove a run's own files, and nothing else that is in its folder."""
    if not _began_here(path):
        return
    with writing(path):
        for name in FILES:
            (path / name).unlink(missing_ok=True)
        shutil.rmtree(path / FOLDER, ignore_errors=True)


def _check_new(path: Path, config: Config) -> None:
    if _holds_a_run(path):
        raise RunError(
            f"A run has a folder of its own; {path} already holds one. Go on with it (--resume {path}), choose another "
            "--out, move it, or give --overwrite to have it removed."
        )
    there = path / CONFIG_FILE
    if there.is_file() and there.read_bytes() != config.to_toml().encode():
        raise RunError(
            f"A run writes its config into its folder; {there} already exists and differs. Choose another "
            f"--out{', or give --overwrite' if _began_here(path) else ''}."
        )


def meant(path: Path) -> str:
    """Which folders were perhaps meant, as a sentence with a space before it: a folder of runs is none itself."""
    return f" Did you mean one of {path}/*?" if any(path.glob(f"*/{CONFIG_FILE}")) else ""


def no_run(path: Path) -> RunError:
    """The error for a folder in which no run began."""
    missing = next(name for name in (CONFIG_FILE, ROUNDS_FILE) if not (path / name).is_file())
    return RunError(
        f"A run has a {missing} in its folder; {path} {'has none' if path.is_dir() else 'is not there'}.{meant(path)} "
        "Give the folder that `fed-lorac run` names at its end, or that `run` was given as out."
    )


def can_go_on(path: Path) -> bool:
    """Whether `--resume` would find something to do here: a checkpoint, what is to come, and no other process.

    UnreadableError where a file is there that would say so and cannot be read.
    """
    try:
        check_unlocked(path)
        rows = read_rows(path / ROUNDS_FILE).rows
        asked = load_config(path / CONFIG_FILE).run.rounds
    except UnreadableError:
        raise
    except FedLoracError as error:
        if isinstance(cause := error.__cause__, OSError) and not isinstance(cause, FileNotFoundError):
            raise UnreadableError(str(error)) from cause
        return False
    lacks_results = not _has_results(path, len(rows)) and any(row["cameras_counted"] for row in rows)
    return (len(rows) < asked or lacks_results) and has_checkpoints(path)


def summary_in(folder: Path) -> Any:
    """What a folder's summary.json holds. OSError where there is none, ValueError where it is no JSON, UnreadableError
    where it is there and cannot be read."""
    try:
        return json.loads(read_bytes(folder / SUMMARY_FILE))
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as cause:
        raise UnreadableError(
            f"A run's results must be readable; {folder / SUMMARY_FILE}: {cause.strerror}. If the disk or network only "
            "failed for a moment, try again."
        ) from cause


def _has_results(path: Path, rounds: int) -> bool:
    """Whether the summary is of all these rounds: that of an earlier end stays until the run ends again."""
    try:
        found = summary_in(path)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("rounds") == rounds and not found.get("interrupted")


@contextmanager
def folder_for(config: Config, name: str, asked: Path | None = None) -> Iterator[Path]:
    """Where a run is to be: `asked`, else `run.out`, else a folder under `runs/` with the name and the time.

    The last is made here, so that no other run has it, and goes again where nothing was left in it.

    Raises:
        RunError: it cannot be made.
    """
    if asked is not None or config.run.out:
        yield home_expanded(asked or config.run.out).absolute()
        return
    runs = Path("runs").absolute()
    are_first = not runs.exists()
    path = _made(runs, f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    try:
        yield path
    finally:
        with suppress(OSError):  # something is in it
            path.rmdir()
            if are_first:
                runs.rmdir()


def _made(parent: Path, stem: str) -> Path:
    for number in itertools.count(1):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        with writing(path), suppress(FileExistsError):  # of a run that began in the same second
            path.mkdir(parents=True)
            return path
    raise AssertionError("whole numbers do not end")


def _began_here(path: Path) -> bool:
    """Whether a run is here, or what one left that was killed before it had measured anything."""
    return _holds_a_run(path) or (path / ROUNDS_FILE).is_file()


def _holds_a_run(path: Path) -> bool:
    """Whether something was measured: one that failed before may be tried again."""
    rounds = path / ROUNDS_FILE
    measured = rounds.is_file() and rounds.stat().st_size > 0
    return measured or (path / SUMMARY_FILE).exists() or has_checkpoints(path)
