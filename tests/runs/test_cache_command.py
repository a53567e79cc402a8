"""Laws of `fed-lorac cache`: it shows what there is, finds damage, and removes nothing that is not ours or in use."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import environment

from fed_lorac import cli
from fed_lorac.data.disk import locked
from fed_lorac.data.inventory import inventory, remove
from fed_lorac.data.store import cached

BASE = "base-resnet8-0123456789abcdef.safetensors"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of three entries, two of a kind, a base, and what a killed builder left."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FED_LORAC_CACHE", str(folder))
    for key in ("weather over digits; fog 3", "weather over digits; fog 4", "images of digits; x"):
        cached(key, lambda: {"images": np.zeros((10, 100), np.uint8)})
    (folder / BASE).write_bytes(b"weights")
    (half := folder / f"{'a' * 32}.tmp-{'b' * 8}").mkdir()
    np.save(half / "images.npy", np.zeros(5))
    (folder / f"{'a' * 32}.lock").touch()
    return folder


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fed-lorac", "cache", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What `fed-lorac cache WORDS --json` says; it must end with exit code 0."""

    def tell(*words: str) -> Any:
        assert called(monkeypatch, *words, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return tell


def test_a_cache_is_shown_by_kinds_with_its_size(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch) == 0
    shown = " ".join(capsys.readouterr().out.split())
    today = time.strftime("%Y-%m-%d")
    for row in (
        "weather over digits │ 2 │",
        "images of digits │ 1 │",
        "base network resnet8 │ 1 │",
        "total │ 5 │",
        today,
    ):
        assert row in shown
    assert f"{cache}, " in shown and "GB free" in shown and "left by a builder" in shown


def test_json_has_each_entry_with_its_bytes_and_times(cache: Path, told: Callable[..., Any]) -> None:
    found = told()
    on_disk = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert found["total_bytes"] == sum(entry["bytes"] for entry in found["entries"]) == on_disk
    assert [entry["what"].split()[0] for entry in found["entries"]] == ["base", "being", "images", *["weather"] * 2]
    assert all(entry["built"] <= entry["used"] and not entry["removed"] for entry in found["entries"])


def test_a_folder_that_is_not_there_is_empty_and_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: Callable[..., Any]
) -> None:
    monkeypatch.setenv("FED_LORAC_CACHE", str(tmp_path / "none" / "yet"))
    assert told()["entries"] == told("--clear")["entries"] == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("FED_LORAC_CACHE", str(tmp_path / "file"))
    assert called(monkeypatch) == 1
    assert "FED_LORAC_CACHE" in capsys.readouterr().err


def test_everything_of_ours_is_cleared(cache: Path, told: Callable[..., Any]) -> None:
    assert all(entry["removed"] for entry in told("--clear", "--yes")["entries"])
    assert list(cache.iterdir()) == []
    assert told()["entries"] == []


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "timm-resnet26", "my_nets:Net"])
def test_a_base_of_any_network_is_seen_and_cleared(name: str, cache: Path, told: Callable[..., Any]) -> None:
    (file := cache / f"base-{name}-{'0' * 16}.safetensors").write_bytes(b"weights")
    assert f"base network {name}" in [entry["what"] for entry in told()["entries"]]
    told("--clear", "--yes")
    assert not file.exists()


FOREIGN = (
    "notes.txt",
    "base-mine.safetensors",
    "base-resnet8-0123456789abcdef.safetensors.bak",
    "report.tmp-2024/text",
    "work.lock",
    f"{'c' * 32}/entry.json",  # another program's, by its content
    f"{'d' * 32}/thesis.pdf",
    f"{'e' * 32}.lock",  # not empty
    "sub/" + "f" * 32 + "/entry.json",
)


def test_nothing_of_anyone_elses_is_seen_or_removed(cache: Path, told: Callable[..., Any], tmp_path: Path) -> None:
    for name in FOREIGN:
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text("{}")
    (tmp_path / "mine").mkdir()
    (cache / ("9" * 32)).symlink_to(tmp_path / "mine")
    (tmp_path / "mine" / "entry.json").write_text('{"format": 1, "key": "x", "arrays": {}}')
    told("--clear", "--yes")
    left = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())
    assert left == sorted([*FOREIGN])
    assert (tmp_path / "mine" / "entry.json").exists()
    cached("another", lambda: {"images": np.zeros(3)})  # nor is it swept up when an entry is built
    assert (cache / "report.tmp-2024" / "text").exists()


def test_an_entry_with_a_strangers_file_in_it_keeps_that_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = cached("images of digits; x", dict).folder
    (place / "notes.txt").write_text("mine")
    assert called(monkeypatch, "--clear", "--yes") == 1
    assert f"{place} was left: it holds files of others" in capsys.readouterr().err
    assert [path.name for path in place.iterdir()] == ["notes.txt"]


def test_an_entry_being_built_is_left_to_its_builder(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build() -> dict[str, np.ndarray]:
        assert called(monkeypatch, "--clear", "--yes") == 1
        return {"images": np.ones(3)}

    np.testing.assert_array_equal(cached("slow", build).arrays["images"], 1)
    assert capsys.readouterr().err.count("was left: it is being built") == 1
    assert [path.suffix for path in cache.iterdir()] in (["", ".lock"], [".lock", ""])


def test_a_lock_that_is_removed_under_a_waiting_builder_is_no_lock(tmp_path: Path) -> None:
    """The one who waited takes the new file's lock, so that no two hold one name's lock at once."""
    path, order = tmp_path / "x.lock", []

    def wait() -> None:
        with locked(path, wait=True) as held:
            order.append((held, path.exists()))
            with locked(path, wait=False) as twice:
                order.append((twice, True))

    with locked(path, wait=False):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        path.unlink()
    waiting.join()
    assert order == [(True, True), (False, True)]


def test_damage_is_found_named_and_cleared_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: Callable[..., Any]
) -> None:
    assert all(entry["damage"] == "" for entry in told("--verify")["entries"])
    flipped, short = (cached(f"weather over digits; fog {n}", dict).folder for n in (3, 4))
    content = bytearray((flipped / "images.npy").read_bytes())
    content[-1] ^= 1
    (flipped / "images.npy").write_bytes(content)
    (short / "images.npy").write_bytes(content[:-5])
    assert called(monkeypatch, "--verify") == 1
    shown = capsys.readouterr().out
    assert f"{flipped}: images.npy has changed" in shown and f"{short}: " in shown and "--verify --clear" in shown
    found = told("--verify", "--clear", "--yes")["entries"]
    assert {Path(entry["path"]) for entry in found if entry["removed"]} == {flipped, short}
    assert {path.name for path in cache.iterdir()} >= {BASE, cached("images of digits; x", dict).folder.name}
    assert called(monkeypatch, "--verify") == 0
    assert "Nothing is damaged." in capsys.readouterr().out


def test_what_has_not_been_used_for_long_can_be_cleared_alone(cache: Path, told: Callable[..., Any]) -> None:
    old, used = (cached(f"weather over digits; fog {n}", dict).folder for n in (3, 4))
    month_ago = time.time() - 30 * 86_400
    for folder in (old, used):
        os.utime(folder / "entry.json", (month_ago, month_ago))
        os.utime(folder, (month_ago, month_ago))
    cached("weather over digits; fog 4", dict)  # a use is noted
    (found,) = told("--clear", "--yes", "--older-than", "29")["entries"]
    assert Path(found["path"]) == old and not old.exists() and used.exists()
    assert told("--older-than", "29")["entries"] == []


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False)])
def test_a_terminal_is_asked_first(cache: Path, answer: str, gone: bool) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fed_lorac", "cache", "--clear"]
    os.write(ours, answer.encode())
    told = subprocess.run(command, stdin=theirs, capture_output=True, text=True, env=environment(), check=True)
    os.close(theirs)
    os.close(ours)
    assert "Remove 5 of these?" in told.stderr and f"Removed {5 * gone}." in told.stdout
    assert (cache / BASE).exists() is not gone


def test_removing_an_entry_that_is_already_gone_is_no_error(cache: Path) -> None:
    items = inventory(cache)
    assert remove(items) == {} == remove(items)
