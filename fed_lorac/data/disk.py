"""Single files and folders, kept whole. Knows locks, flushes and checksums; not keys, entries or arrays."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from fed_lorac.runtime import files
from fed_lorac.runtime.flock import is_at, lock_file

__all__ = ["locked", "sha256", "write", "writing"]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a failure to write here into a `RunError` with its remedy."""
    with files.writing(folder, "The cache is where FED_LORAC_CACHE says."):
        yield


def write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Let `fill` write a new file, and have it on the disk before returning."""
    with path.open("wb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool | None]:
    """Hold a file's lock; yields whether it is held: False where another holds it, None where there are no locks."""
    with writing(path.parent):
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        held = lock_file(handle, wait=wait)
        if held and not is_at(handle, path):  # who held it before has removed the file, and others lock a new one
            with locked(path, wait=wait) as anew:
                yield anew
        else:
            yield held
    finally:
        os.close(handle)  # gives the lock back


def sha256(path: Path) -> str:
    """The checksum of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
