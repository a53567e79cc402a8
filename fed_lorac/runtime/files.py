"""Files that appear whole or not at all. Knows paths and bytes; not what they mean.

A file is written beside its place, forced to the disk, and renamed: whoever opens the path finds the old file or the
new one, after Ctrl-C, SIGKILL or a power cut alike.
"""

import errno
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fed_lorac.errors import RunError

__all__ = [
    "clear_litter",
    "discard",
    "home_expanded",
    "read_bytes",
    "reserved",
    "sync_folder",
    "write_bytes",
    "write_text",
    "writing",
]

_REMEDIES = {
    errno.ENOSPC: "Free some space there, or choose another place.",
    errno.EDQUOT: "Free some space there: your quota is used up.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or choose another place.",
    errno.EACCES: "Choose a place that you may write to, or have the permission given.",
    errno.EPERM: "Choose a place that you may write to, or have the permission given.",
    errno.EROFS: "Choose a place that can be written: this file system is read-only.",
    errno.EEXIST: "Choose another path: a part of this one is a file.",
    errno.ENOTDIR: "Choose another path: a part of this one is a file.",
    errno.EISDIR: "Choose another name: a folder has this one.",
}


_LASTING = FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError  # no moment's failures
_PAUSES_S = (0.1, 0.4, 1.0)
"""A file that cannot be read is tried again after each of these."""


@contextmanager
def writing(path: Path, further: str = "") -> Iterator[None]:
    """Turn a file system's refusal to write at `path` into a `RunError` with its remedy, and what helps further."""
    try:
        yield
    except OSError as cause:
        remedy = _REMEDIES.get(cause.errno or 0, "Check the path, or choose another place.")
        remedies = f"{remedy} {further}".rstrip()
        raise RunError(f"Output must be writable; {path}: {cause.strerror or cause}. {remedies}") from cause


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk: a rename lives there. Some file systems cannot, and lose nothing."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` atomically, replacing what is there; RunError where that cannot be written."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with writing(path):
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:  # Ctrl-C too leaves no litter
            with suppress(OSError):
                beside.unlink()
            raise
    sync_folder(path.parent)
    return path


@contextmanager
def reserved(path: str | Path, size_bytes: int, *, overwrite: bool = False) -> Iterator[None]:
    """Keep room for a file that long work will write to `path`, so that the work is not lost for a bad place. Its
    folder is made where there is none, and goes again where the work fails.

    Raises:
        RunError: the place cannot be written or has no room; or there is a file, and it is not to be overwritten.
    """
    path = Path(path)
    if path.is_file() and not overwrite:
        raise RunError(f"An existing file is kept; {path} exists. Choose another name, or give --overwrite.")
    with _folder_of(path), ExitStack() as held:
        with writing(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            # It has no name: no kill leaves it behind.
            room = held.enter_context(tempfile.TemporaryFile(dir=path.parent))
            os.posix_fallocate(room.fileno(), 0, max(1, size_bytes))
        yield


@contextmanager
def _folder_of(path: Path) -> Iterator[None]:
    with writing(path):
        made = [folder for folder in path.absolute().parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # something is in it
            for folder in made:
                folder.rmdir()
        raise


def clear_litter(folder: Path) -> None:
    """Remove what a killed process left half-written beside the files of a folder."""
    for litter in folder.glob(".*.tmp"):
        discard(litter)


def discard(path: Path) -> None:
    """Remove a file that nobody needs any more; one that cannot be removed stays, with a warning."""
    try:
        path.unlink(missing_ok=True)
    except OSError as cause:
        logging.getLogger(__name__).warning("%s is not needed any more, and stays: %s.", path, cause.strerror)


def read_bytes(path: Path, *, due: bool = False) -> bytes:
    """A file's bytes. One that is there and cannot be read is tried again for a second and a half: on a network a read
    may fail once; and one that is `due` may come late. OSError where it cannot be read even then."""
    for pause_s in _PAUSES_S:
        try:
            return path.read_bytes()
        except OSError as cause:
            if isinstance(cause, _LASTING) and not due:
                raise
            time.sleep(pause_s)
    return path.read_bytes()


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text to `path` atomically, newlines as they are."""
    return write_bytes(path, text.encode())


def home_expanded(path: str | Path) -> Path:
    """The path with its `~` or `~user` replaced; RunError where there is no such user, or no home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RunError(
            f"A path that begins with ~ lies in a home folder; {str(path)!r} has none here. Write the whole path."
        ) from None
