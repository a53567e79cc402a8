"""Laws of the lock on a run's folder: one owner while it lives, another when it is gone, with real processes."""

import fcntl
import json
import logging
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from killed import SERVER

from fed_lorac.errors import RunError
from fed_lorac.runtime import lock
from fed_lorac.runtime.lock import LOCK_FILE, FolderLock, check_unlocked


def hold(folder: Path, let_go: Path) -> None:
    """Hold a folder until a file appears."""
    with FolderLock(folder):
        (folder / "held").touch()
        while not let_go.exists():
            time.sleep(0.01)


class Holder:
    """Another process that holds a folder."""

    def __init__(self, folder: Path) -> None:
        self.let_go = folder.with_name("let go")
        self.process = SERVER.Process(target=hold, args=(folder, self.let_go))
        self.process.start()
        while not (folder / "held").exists():
            assert self.process.is_alive()
            time.sleep(0.01)

    def end(self, *, killed: bool) -> None:
        if killed:
            self.process.kill()
        else:
            self.let_go.touch()
        self.process.join()


def test_a_second_owner_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    holder = Holder(folder := tmp_path / "run")
    try:
        for look in (FolderLock, check_unlocked):
            with pytest.raises(RunError, match=rf"process {holder.process.pid} on {socket.gethostname()} \(since 20"):
                look(folder)
    finally:
        holder.end(killed=False)
    check_unlocked(folder)
    with FolderLock(folder):
        pass


def test_one_process_holds_a_folder_once(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path)


def test_a_lock_whose_owner_was_killed_is_taken_over_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder = Holder(folder := tmp_path / "run")
    holder.end(killed=True)
    check_unlocked(folder)
    with caplog.at_level(logging.WARNING), FolderLock(folder) as mine:
        mine.check()
    assert f"process {holder.process.pid} on" in caplog.text and "takes it over" in caplog.text


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "new"):
        assert (tmp_path / "new" / LOCK_FILE).exists()
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with FolderLock(tmp_path / "mine"):
        pass
    assert not list((tmp_path / "mine").iterdir())


def test_a_suspended_owner_that_was_replaced_notices(tmp_path: Path) -> None:
    with FolderLock(tmp_path) as mine:
        note = json.loads((tmp_path / LOCK_FILE).read_text())
        (tmp_path / LOCK_FILE).write_text(json.dumps(note | {"token": "another", "host": "elsewhere"}))
        with pytest.raises(RunError, match=r"held by process .* on elsewhere"):
            mine.check()
        (tmp_path / LOCK_FILE).unlink()
        with pytest.raises(RunError, match="nobody"):
            mine.check()
    assert not (tmp_path / LOCK_FILE).exists()


def note_of_another_machine(folder: Path) -> Path:
    path = folder / LOCK_FILE
    note = {"host": "elsewhere", "pid": 1, "started": "7", "boot": "another", "since": "2026", "token": "t"}
    path.write_text(json.dumps(note))
    return path


def test_an_owner_on_another_machine_lives_while_it_touches_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system that shares no locks: this kernel knows nothing of the other's."""
    monkeypatch.setattr(lock, "_BEAT_S", 0.1)
    monkeypatch.setattr(lock, "_SILENCE_S", 0.5)
    path, ended = note_of_another_machine(tmp_path), threading.Event()

    def touch() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    owner = threading.Thread(target=touch)
    owner.start()
    try:
        with pytest.raises(RunError, match="process 1 on elsewhere"):
            FolderLock(tmp_path)
    finally:
        ended.set()
        owner.join()
    with caplog.at_level(logging.WARNING), FolderLock(tmp_path):
        pass
    assert "is gone" in caplog.text


def test_an_owner_touches_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT_S", 0.05)
    with FolderLock(tmp_path):
        first = (tmp_path / LOCK_FILE).stat().st_mtime_ns
        deadline = time.monotonic() + 60
        while (tmp_path / LOCK_FILE).stat().st_mtime_ns == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_without_locks_the_note_of_a_living_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with FolderLock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()}"):
        FolderLock(tmp_path)
    with FolderLock(tmp_path):  # it let go
        pass


@pytest.mark.parametrize("litter", [b"", b"{", b"[]", b'{"pid": 1}'])
def test_a_note_that_was_never_finished_is_nobodys(tmp_path: Path, litter: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(litter)
    check_unlocked(tmp_path)
    with FolderLock(tmp_path) as mine:
        mine.check()


def test_a_lock_that_cannot_be_read_for_a_moment_is_read_again(tmp_path: Path) -> None:
    with FolderLock(folder := tmp_path / "run") as held:
        path = folder / LOCK_FILE
        path.rename(aside := folder / "aside")
        path.symlink_to(path)  # a loop: to open it is an error, and not that nothing is there
        mended = threading.Timer(0.3, aside.replace, (path,))
        mended.start()
        held.check()
        mended.join()


def test_a_lock_that_stays_unreadable_ends_its_owner_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_SILENCE_S", 0.1)
    with FolderLock(folder := tmp_path / "run") as held:
        path = folder / LOCK_FILE
        path.rename(folder / "aside")
        path.symlink_to(path)
        with pytest.raises(RunError, match="Too many levels of symbolic links"):
            held.check()
