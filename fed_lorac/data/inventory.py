"""What lies in the cache, and how it is cleared. Knows entries, sizes and times; not what their arrays mean.

The cache may be a folder that holds other things too. So only what bears our names and holds our files is seen, and
only those files are removed: entries, what killed builders left of them, trained base networks, and locks.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fed_lorac.data.disk import locked, writing
from fed_lorac.data.store import FINISHED, UNFINISHED, kept
from fed_lorac.errors import DataError

__all__ = ["Item", "damage", "inventory", "remove"]

_BASE = re.compile(r"base-(.+)-[0-9a-f]{16}\.safetensors")
_REST = "being built, or left by a builder that failed"
_LOCK = re.compile(r"[0-9a-f]{32}\.lock")


@dataclass(frozen=True)
class Item:
    """One thing that may be cleared: its place, what it is in words, and when it was built and last used."""

    path: Path
    what: str
    size_bytes: int
    built: float  # seconds since 1970
    used: float  # likewise, to the hour


def inventory(cache: Path) -> list[Item]:
    """All that is ours in this folder, by what it is; nothing where there is no such folder.

    Raises:
        DataError: it is no folder, or cannot be read.
    """
    try:
        with os.scandir(cache) as entries:
            found = [item for entry in entries if (item := _item(entry))]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"The cache must be a readable folder; {cache} is not: {error.strerror}. FED_LORAC_CACHE says where it is."
        ) from error
    owners = {item.path.name[:32] for item in found if not _LOCK.fullmatch(item.path.name)}
    alone = [item for item in found if not _LOCK.fullmatch(item.path.name) or item.path.stem not in owners]
    return sorted(alone, key=lambda item: (item.what, item.path))


def _item(entry: os.DirEntry[str]) -> Item | None:
    path = Path(entry.path)
    with contextlib.suppress(OSError):  # removed meanwhile
        about = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(about.st_mode) and (base := _BASE.fullmatch(entry.name)):
            used = max(about.st_mtime, about.st_atime)
            return Item(path, f"base network {base[1]}", about.st_size, about.st_mtime, used)
        if stat.S_ISDIR(about.st_mode) and FINISHED.fullmatch(entry.name):
            what, built = _what(path / "entry.json"), (path / "entry.json").stat().st_mtime
            return Item(path, what, _size(path), built, max(built, about.st_mtime)) if what else None
        if stat.S_ISDIR(about.st_mode) and UNFINISHED.fullmatch(entry.name):
            return Item(path, _REST, _size(path), about.st_mtime, about.st_mtime)
        if stat.S_ISREG(about.st_mode) and _LOCK.fullmatch(entry.name) and not about.st_size:
            return Item(path, _REST, 0, about.st_mtime, about.st_mtime)
    return None


def _what(note: Path) -> str:
    """What an entry's description calls it: the beginning of its key. Empty where it is not one of ours."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        return "damaged"
    if not isinstance(said, dict) or not {"format", "key", "arrays"} <= said.keys():
        return ""
    words, end, _ = str(said["key"]).partition(";")
    return words if end else "made by an older version"


def _files(folder: Path) -> Iterator[Path]:
    """An entry's own files, its description first: once that is gone, nobody opens the entry."""
    if (note := folder / "entry.json").is_file():
        yield note
    yield from sorted(path for path in folder.glob("*.npy") if path.is_file() and not path.is_symlink())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def damage(item: Item) -> str:
    """What is wrong with an entry, all of which is read; empty where its bytes are those that were built."""
    if not FINISHED.fullmatch(item.path.name):
        return ""
    try:
        return ", ".join(f"{name}.npy has changed since it was built" for name in kept(item.path).damage())
    except DataError as error:
        return str(error)


def remove(items: Iterable[Item]) -> dict[Path, str]:
    """Remove these. Returns what was left, with the reason: someone builds it, or it holds files that are not ours.

    Raises:
        RunError: the cache cannot be written.
    """
    reasons = {item.path: _remove(item.path) for item in items}
    return {path: reason for path, reason in reasons.items() if reason}


def _remove(path: Path) -> str:
    with writing(path.parent):
        if _BASE.fullmatch(path.name):
            path.unlink(missing_ok=True)
            return ""
        lock = path.with_name(f"{path.name[:32]}.lock")
        with locked(lock, wait=False) as held:
            # Where a file system has no locks, what is finished may go: who builds beside it builds it whole.
            if held is False or (held is None and not FINISHED.fullmatch(path.name)):
                return "it is being built"
            for file in _files(path):
                file.unlink(missing_ok=True)
            if path.is_dir() and any(path.iterdir()):
                return "it holds files of others too"
            if path.is_dir():
                path.rmdir()
            if held:
                lock.unlink(missing_ok=True)
    return ""
