"""The kernel's lock on an open file, which it gives back when its holder ends, however it ends. Knows file handles; not
what a lock is for."""

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["is_at", "lock_file"]


def lock_file(handle: int, *, shared: bool = False, wait: bool = False) -> bool | None:
    """Lock an open file, alone or `shared`; True: held, False: another holds it, None: there are no locks here."""
    if fcntl is None:
        return None
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether the path still leads to the open file: an earlier holder of the lock may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):  # the second where another machine removed it
            return False
        raise
