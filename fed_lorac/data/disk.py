"""Single files and folders, kept whole. Knows locks, flushes, checksums and `.npy`; not keys, entries or images."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fed_lorac.errors import DataError
from fed_lorac.runtime import files

try:
    import fcntl
except ImportError:  # Windows: no lock, so builders race, harmlessly
    fcntl = None  # type: ignore[assignment]

__all__ = ["flush_folder", "locked", "map_array", "sha256", "write", "writing"]


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


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool | None]:
    """Hold a file's lock; yields whether it is held: False where another holds it, None where there are no locks."""
    with writing(path.parent):
        handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        held = _lock(handle, wait)
        if held and not _is_at(handle, path):  # who held it before has removed the file, and others lock a new one
            with locked(path, wait=wait) as anew:
                yield anew
        else:
            yield held
    finally:
        os.close(handle)  # gives the lock back


def _lock(handle: int, wait: bool) -> bool | None:
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the path still leads to the file that is open."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def sha256(path: Path) -> str:
    """The checksum of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
