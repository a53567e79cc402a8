"""Append-only rows of what was measured. Knows numbers and words by column; never arrays, messages or models.

Each row is one whole JSON line that has left the process before the call returns: a run that is killed leaves a
readable file. A float that is not finite is written as null, so that every reader of JSON can read it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fed_lorac.errors import RunError, UnreadableError
from fed_lorac.records.columns import Kind, columns_of
from fed_lorac.runtime.files import read_bytes, writing

__all__ = [
    "CAMERAS_FILE",
    "ROUNDS_FILE",
    "Ledger",
    "Rows",
    "each_row",
    "read_rows",
]

Row = dict[str, Any]

ROUNDS_FILE, CAMERAS_FILE = "rounds.jsonl", "cameras.jsonl"


def _row(file: str, columns: Mapping[str, Kind], values: Mapping[str, object]) -> Row:
    """The values in the table's order, each checked against its column."""
    if values.keys() != columns.keys():
        missing = ", ".join(sorted(columns.keys() - values.keys())) or "none"
        unknown = ", ".join(sorted(values.keys() - columns.keys())) or "none"
        raise RunError(
            f"A row of {file} has exactly the columns of its table in fed_lorac.records.columns; missing: {missing}; "
            f"unknown: {unknown}. Give every column, or add the new one to the table."
        )
    row = {}
    for name, kind in columns.items():
        try:
            row[name] = kind.check(values[name])
        except (TypeError, ValueError, OverflowError):
            raise RunError(
                f"Column {name!r} of {file} holds {kind.name}; got {type(values[name]).__name__} "
                f"{str(values[name])[:60]!r}. Convert it before it is recorded."
            ) from None
    return row


@dataclass(frozen=True)
class Rows:
    """The whole rows of a file, and the bytes of a torn last line after them (0 in a file that ended well)."""

    rows: list[Row]
    torn_bytes: int


def read_rows(path: str | Path) -> Rows:
    """Read a ledger file back; a last line without its newline is reported, not read.

    Raises:
        RunError: the file is missing, or a line before the last is not a JSON object.
    """
    try:
        data = read_bytes(Path(path))
    except OSError as cause:
        raise _unreadable(path, cause) from None
    *lines, torn = data.split(b"\n")
    return Rows([_parse(path, number, line) for number, line in enumerate(lines, 1)], len(torn))


def each_row(path: str | Path) -> Iterator[Row]:
    """The same rows one after the other, for files that are large: of a fleet's cameras in all rounds, say."""
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _parse(path, number, line[:-1])
    except OSError as cause:
        raise _unreadable(path, cause) from None


def _unreadable(path: str | Path, cause: OSError) -> RunError:
    kind = RunError if isinstance(cause, FileNotFoundError | NotADirectoryError) else UnreadableError
    return kind(f"A ledger must be readable; {path}: {cause.strerror}. Is this a run's folder?")


def _parse(path: str | Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise RunError(
            f"Every line of a ledger is one JSON object; line {number} of {path} is {line[:60]!r}. "
            "The file was edited or damaged: restore it, or delete that line."
        )
    return row


class _File:
    """One JSONL file, open for appending without a buffer of its own."""

    def __init__(self, path: Path, columns: Mapping[str, Kind]) -> None:
        self.path, self.columns = path, columns
        try:
            torn = read_rows(path).torn_bytes if path.exists() else 0
            self.file = path.open("ab", buffering=0)
            self.file.truncate(self.file.seek(0, os.SEEK_END) - torn)
        except OSError as cause:
            raise RunError(f"A ledger must be writable; {path}: {cause.strerror}. Choose another folder.") from None

    def sync(self) -> None:
        """Force all rows to the disk."""
        with writing(self.path, "Then resume."):
            os.fsync(self.file.fileno())

    def size(self) -> int:
        """The bytes of all rows."""
        return self.file.seek(0, os.SEEK_END)

    def cut(self, size: int) -> None:
        if self.file.seek(0, os.SEEK_END) < size:
            raise RunError(
                f"A ledger holds what its run has measured; {self.path} has lost rows: it ends before byte {size}. "
                "Restore it, or start the run again in another folder."
            )
        self.file.truncate(size)

    def append(self, values: Mapping[str, object]) -> Row:
        row = _row(self.path.name, self.columns, values)
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        end = self.file.seek(0, os.SEEK_END)
        try:
            if self.file.write(line) == len(line):
                return row
            failure = "the disk took half a line"
        except OSError as cause:
            failure = str(cause.strerror)
        self.file.truncate(end)
        raise RunError(f"A row of {self.path} must be written whole; {failure}. Make room on the disk and resume.")


class Ledger:
    """The two files of a run: `rounds.jsonl` and `cameras.jsonl` in `folder`, which is made where it is missing.

    Opening a folder that has them already goes on after their last whole row; a torn last line is cut off. Rows have
    columns besides where the run's cameras learn from images without labels (`guesses`), where its server chooses the
    layers (`chooses`), where most cameras hear updates together (`together`), where some hear them by multicast
    (`multicasts`), and where links lose messages (`loses`).
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        guesses: bool = False,
        chooses: bool = False,
        together: bool = False,
        multicasts: bool = False,
        loses: bool = False,
    ) -> None:
        folder, self.guesses, self.chooses, self.together = Path(folder), guesses, chooses, together
        self.multicasts, self.loses = multicasts, loses
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise RunError(f"A run needs a folder; {folder}: {cause.strerror}. Choose another with --out.") from None
        of_rounds, of_cameras = columns_of(
            guesses=guesses, chooses=chooses, together=together, multicasts=multicasts, loses=loses
        )
        self._rounds = _File(folder / ROUNDS_FILE, of_rounds)
        self._cameras = _File(folder / CAMERAS_FILE, of_cameras)

    def round(self, **columns: object) -> Row:
        """Append one round, return its row; RunError unless its columns are those of `columns_of`, by kind too."""
        return self._rounds.append(columns)

    def camera(self, **columns: object) -> None:
        """Append one camera's round; RunError unless the columns are exactly those of `columns_of`."""
        self._cameras.append(columns)

    def ends(self) -> dict[str, int]:
        """How far both files are written, in bytes: what `cut` goes back to."""
        return {"rounds": self._rounds.size(), "cameras": self._cameras.size()}

    def position(self) -> dict[str, int]:
        """As `ends`, once all rows are on the disk."""
        self._rounds.sync()
        self._cameras.sync()
        return self.ends()

    def cut(self, position: Mapping[str, int]) -> None:
        """Take away every row after this position; RunError where rows before it are missing."""
        self._rounds.cut(position["rounds"])
        self._cameras.cut(position["cameras"])

    def close(self) -> None:
        """Close both files; rows are already written."""
        self._rounds.file.close()
        self._cameras.file.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
