"""Arrays on disk, built once and mapped by every process. Knows keys, files and locks; not what the arrays mean.

An entry is a folder named after its key, with one `.npy` an array and `entry.json`. It is built in a folder beside
its place, flushed to disk and renamed, so an entry is whole or absent, whenever the power goes. A lock (released by
the kernel when its holder dies) lets one process build while the others wait for it; where the file system has no
locks they all build, and the first to finish wins.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fed_lorac.data.disk import locked, sha256, write, writing
from fed_lorac.errors import DataError, RunError
from fed_lorac.runtime.files import home_expanded, sync_folder

__all__ = [
    "FINISHED",
    "UNFINISHED",
    "Entry",
    "cache_folder",
    "cached",
    "cached_arrays",
    "find",
    "kept",
    "map_array",
    "note_use",
]

Build = Callable[[], Mapping[str, np.ndarray]]
FORMAT = 1
FINISHED, UNFINISHED = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{32}\.tmp-[0-9a-f]{8}")  # names of folders


@dataclass(frozen=True)
class Entry:
    """A finished entry: its key in print, its arrays, mapped read-only, and each file's sha256 as it was built."""

    folder: Path
    key: str
    arrays: dict[str, np.memmap]
    sha256: dict[str, str]

    def damage(self) -> list[str]:
        """The names of the arrays whose bytes have changed since they were built (reads them all)."""
        return [name for name, digest in self.sha256.items() if sha256(self.folder / f"{name}.npy") != digest]


def cache_folder(cache_dir: Path | str | None = None) -> Path:
    """The argument, else $FED_LORAC_CACHE, else $XDG_CACHE_HOME/fed-lorac, else ~/.cache/fed-lorac.

    Raises:
        RunError: it lies in a home folder, and there is none.
    """
    if cache_dir or (cache_dir := os.environ.get("FED_LORAC_CACHE")):
        expanded = home_expanded(cache_dir) if str(cache_dir).startswith("~") else Path(cache_dir)
        return expanded.absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "fed-lorac"
    try:
        return Path.home() / ".cache" / "fed-lorac"
    except RuntimeError:
        raise RunError(
            "The cache lies in its user's home folder, and this user has none. Set FED_LORAC_CACHE to another folder."
        ) from None


def cached_arrays(key: str, build: Build, cache_dir: Path | str | None = None) -> dict[str, np.memmap]:
    """The arrays of `cached`, without their checksums."""
    return cached(key, build, cache_dir).arrays


def cached(key: str, build: Build, cache_dir: Path | str | None = None) -> Entry:
    """The entry of this key, built on first use: a damaged or half-deleted one is built again.

    Args:
        key: everything that decides the arrays' values, in any text, the code that makes them among it (`source_of`).
            It begins with what a person would call them, then "; ".
        build: makes the arrays, by name; called only when there is no entry yet, and whatever it raises passes through.
        cache_dir: see `cache_folder`.

    Raises:
        RunError: the cache cannot be written.
        DataError: an array's name or type cannot be stored.
    """
    if (entry := find(key, cache_dir)) is not None:
        return entry
    place = _place(key, cache_dir)
    cache = place.parent
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{place.name}.lock", wait=True) as alone:
        with contextlib.suppress(DataError):  # another process built it while this one waited
            return _open(place, key)
        if alone:
            _sweep(cache, place.name)
        _build(place, key, build)
    return _open(place, key)


def find(key: str, cache_dir: Path | str | None = None) -> Entry | None:
    """The entry of this key; None where there is none that is whole. Nothing is written, and nobody waited for."""
    with contextlib.suppress(DataError):
        return _used(_open(_place(key, cache_dir), key))
    return None


def _place(key: str, cache_dir: Path | str | None) -> Path:
    return cache_folder(cache_dir) / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]


def kept(place: Path) -> Entry:
    """The finished entry in this folder. Raises `DataError` when it is absent, or does not fit its description."""
    return _open(place, None)


def map_array(path: Path) -> np.memmap:
    """A `.npy` file, mapped read-only; no pickle is read.

    Raises:
        DataError: missing, no `.npy`, made of Python objects, truncated, or longer than its header says.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.memmap):
            raise ValueError("not a .npy file")
        if path.stat().st_size != array.offset + array.nbytes:
            raise ValueError(f"its header promises {array.offset + array.nbytes} bytes, it has {path.stat().st_size}")
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise DataError(
            f"{path} must be a whole .npy file of plain numbers: {error}. Copy or make it again."
        ) from error
    return array


def _open(place: Path, key: str | None) -> Entry:
    """Map a finished entry. Raises `DataError` when it is absent, another key's, or does not fit its description."""
    try:
        note = json.loads((place / "entry.json").read_text(encoding="utf-8"))
        described = {name: (tuple(a["shape"]), a["dtype"]) for name, a in note["arrays"].items()}
        named = str(note["key"])
        if note["format"] != FORMAT or (key is not None and named != _printable(key)):
            raise ValueError("made by another version, or for another key")
        digests = {name: str(a["sha256"]) for name, a in note["arrays"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"A cache entry must have a readable entry.json; {place}: {error}. Delete it.") from error
    arrays = {name: map_array(place / f"{name}.npy") for name in described}
    for name, array in arrays.items():
        if (array.shape, array.dtype.str) != described[name]:
            raise DataError(f"A cached array must fit its entry.json; {place}/{name}.npy does not. Delete {place}.")
    return Entry(place, named, arrays, digests)


def note_use(file: Path) -> None:
    """Note the use of a file in the cache, in its time of access: `fed-lorac cache` shows it."""
    with contextlib.suppress(OSError):  # a cache that may only be read
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))


def _used(entry: Entry) -> Entry:
    """Note the use, to the hour, in the folder's time of change: `fed-lorac cache` shows it."""
    with contextlib.suppress(OSError):  # a cache that may only be read
        if time.time() - entry.folder.stat().st_mtime > 3600:
            os.utime(entry.folder)
    return entry


def _build(place: Path, key: str, build: Build) -> None:
    work = place.with_name(f"{place.name}.tmp-{secrets.token_hex(4)}")
    with writing(place.parent):
        work.mkdir()
    try:
        made = build()
        with writing(place.parent):
            arrays = {name: _save(work, name, np.asarray(array, order="C")) for name, array in made.items()}
            note = json.dumps({"format": FORMAT, "key": _printable(key), "arrays": arrays}, indent=1)
            write(work / "entry.json", lambda file: file.write(note.encode()))
            sync_folder(work)
            _put(work, place, key)
            sync_folder(place.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)  # after the rename there is nothing left to remove


def _save(work: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    if not name.isidentifier() or array.dtype.hasobject:
        raise DataError(f"A cached array must have a plain name and plain numbers; got {name!r} of {array.dtype}.")
    path = work / f"{name}.npy"
    # To a real file NumPy writes by itself, and loses the system's reason where that fails.
    write(path, lambda file: np.lib.format.write_array(_Writes(file.write), array, allow_pickle=False))
    return {"shape": list(array.shape), "dtype": array.dtype.str, "sha256": sha256(path)}


@dataclass(frozen=True)
class _Writes:
    """As much of a file as NumPy needs."""

    write: Callable[[bytes], object]


def _put(work: Path, place: Path, key: str) -> None:
    """Rename into place. A whole entry that got there first stays; a damaged one gives way."""
    try:
        with contextlib.suppress(DataError):
            _open(place, key)
            return
        shutil.rmtree(place, ignore_errors=True)
        work.rename(place)
    except OSError:
        if not (place / "entry.json").exists():  # no other builder's entry: a real failure
            raise


def _sweep(cache: Path, mine: str) -> None:
    """Remove what killed builders left: the folders of this key, whose lock the caller holds, and of any free one."""
    for work in cache.glob("*.tmp-*"):
        if not UNFINISHED.fullmatch(work.name):  # the cache may lie in a folder that is used otherwise
            continue
        owner = work.name.partition(".")[0]
        with contextlib.nullcontext(True) if owner == mine else locked(cache / f"{owner}.lock", wait=False) as is_free:
            if is_free:
                shutil.rmtree(work, ignore_errors=True)


def _printable(key: str) -> str:
    return key.encode(errors="backslashreplace").decode()
