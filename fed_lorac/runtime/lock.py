"""One owner for a run's folder: a lock that its process holds for life. Knows files, machines and processes; not runs.

Two things say whether the owner lives. The kernel holds a lock on the file `run.lock` until its owner ends, however it
ends; containers of one machine and most network file systems share such locks. Where they do not, the owner's note in
the file counts: it names the machine and the process, and the owner touches the file every few seconds.
"""

import json
import logging
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from fed_lorac.errors import RunError
from fed_lorac.runtime.files import writing
from fed_lorac.runtime.flock import is_at, lock_file

__all__ = ["LOCK_FILE", "FolderLock", "Owner", "check_unlocked"]

LOCK_FILE = "run.lock"
_BEAT_S = 4.0
_SILENCE_S = 3 * _BEAT_S
"""How long a file on a shared file system must stay untouched until its owner on another machine counts as gone."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, as its file says."""

    host: str
    pid: int
    started: str  # when the kernel started the process: its id alone is used again
    boot: str  # which machine, since it was last started
    since: str
    token: str  # drawn at random: tells this owner from every other

    @classmethod
    def here(cls) -> Self:
        """This process, from now on."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), _boot(), now, secrets.token_hex(8))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (since {self.since})"

    @property
    def is_of_this_machine(self) -> bool:
        """Whether its process would be one of this kernel's."""
        return self.boot == _boot()

    @property
    def is_running_here(self) -> bool:
        """Whether its process is to be seen from here."""
        return self.is_of_this_machine and _started(self.pid) == self.started


class FolderLock:
    """The lock on a folder, which is made where it is missing. To be held in a `with`, until the run has ended.

    Raises:
        RunError: another process holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._path = folder, folder / LOCK_FILE
        self._is_new = not folder.exists()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._handle, kernel = _opened(self._path)
        try:
            before = _owner(self._handle)
            if not kernel or (before is not None and _lives(before, self._path)):
                raise _taken(folder, before)
            if before is not None:
                logging.getLogger(__name__).warning(
                    "The owner of %s, %s, is gone without having ended its run; this process takes it over.",
                    folder,
                    before,
                )
            self.owner = Owner.here()
            with writing(folder):
                _write(self._handle, self.owner)
        except BaseException:
            os.close(self._handle)
            raise
        self._end = Event()
        self._beat = Thread(target=self._touch, name="run.lock", daemon=True)
        self._beat.start()

    def check(self) -> None:
        """Raise `RunError` where the folder is no longer this process's: it stood still, and another took it over.

        Or where the file cannot be read, however often it is tried, for longer than another would wait to take over.
        """
        with writing(self.folder):
            now = _named_in(self._path)
        if now is None or now.token != self.owner.token:
            raise RunError(
                f"A run's folder has one owner; {self.folder} was taken from this process and is held by "
                f"{now or 'nobody'}. This process ends without writing there; the other goes on."
            )

    def release(self) -> None:
        """Let go; the lock's file goes too, and so does a folder that was made for it and holds nothing else."""
        self._end.set()
        self._beat.join()
        with suppress(RunError, OSError):
            self.check()
            self._path.unlink()
            if self._is_new:
                self.folder.rmdir()
        os.close(self._handle)

    def _touch(self) -> None:
        while not self._end.wait(_BEAT_S):
            with suppress(OSError):
                os.utime(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def check_unlocked(folder: Path) -> None:
    """Raise `RunError` where another process plainly holds the folder; a first look that waits for nothing."""
    try:
        owner = _owner_at(folder / LOCK_FILE)
    except OSError:
        return
    if owner is not None and owner.is_running_here:
        raise _taken(folder, owner)


def _opened(path: Path) -> tuple[int, bool]:
    """The lock's file, open, and whether the kernel gives it to this process (or has no locks for this file system)."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        held = lock_file(handle) is not False
        if not held or is_at(handle, path):
            return handle, held
        os.close(handle)  # its owner let go and removed it meanwhile


def _lives(owner: Owner, path: Path) -> bool:
    """Whether the owner of a lock that the kernel gave away is alive all the same, for lack of locks."""
    if owner.is_of_this_machine:
        return owner.is_running_here and not _has_locks(path)
    logging.getLogger(__name__).warning(
        "%s was held by %s. Waiting %g s to see whether it still is.", path.parent, owner, _SILENCE_S
    )
    first, deadline = _touched(path), time.monotonic() + _SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(_BEAT_S / 4)
        if _touched(path) != first:
            return True
    return False


def _has_locks(path: Path) -> bool:
    """Whether this file system has locks: a second look must find the first one's."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return lock_file(handle, shared=True) is False
    finally:
        os.close(handle)


def _touched(path: Path) -> int:
    """When the file was last touched. It is opened for that: a network file system then asks its server."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(handle).st_mtime_ns
    finally:
        os.close(handle)


def _named_in(path: Path) -> Owner | None:
    """Whom the file names; None where it is gone. What a network folder fails to say for a moment is asked again."""
    deadline = time.monotonic() + _SILENCE_S
    while True:
        try:
            return _owner_at(path)
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_BEAT_S / 8)


def _owner_at(path: Path) -> Owner | None:
    """Whom the file at the path names; OSError where it cannot be read."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return _owner(handle)
    finally:
        os.close(handle)


def _owner(handle: int) -> Owner | None:
    """Whom the file names; None where it is empty, or was cut off in the writing."""
    try:
        return Owner(**json.loads(os.pread(handle, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _write(handle: int, owner: Owner) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(asdict(owner)).encode(), 0)
    os.fsync(handle)


def _taken(folder: Path, owner: Owner | None) -> RunError:
    return RunError(
        f"A run's folder has one owner; {folder} is held by {owner or 'another process'}. Wait until that has ended, "
        "or end it, and go on with --resume; or choose another --out."
    )


def _boot() -> str:
    """This kernel since it was started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; empty where there is none of that number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
