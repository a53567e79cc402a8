"""Laws of the shared cache: whole or absent, built once, never trusted when damaged."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from fed_lorac.data.store import cache_folder, cached, cached_arrays
from fed_lorac.errors import DataError, RunError

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def counted(calls: list[int]) -> Callable[[], dict[str, np.ndarray]]:
    def build() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"images": PIXELS, "labels": np.array([3, 1])}

    return build


def test_what_was_built_comes_back_mapped_and_read_only(tmp_path: Path) -> None:
    arrays = cached_arrays("a", counted([]), tmp_path)
    np.testing.assert_array_equal(arrays["images"], PIXELS)
    assert isinstance(arrays["images"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        arrays["images"][0] = 0


@settings(max_examples=30, deadline=None)
@given(
    arrays_of.arrays(
        st.sampled_from([np.dtype(kind) for kind in ("u1", "<i8", "<f4", "<U7", "?")]),
        arrays_of.array_shapes(min_dims=0, min_side=0),
    )
)
def test_any_plain_array_survives(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    back = cached_arrays("any", lambda: {"it": array}, tmp_path_factory.mktemp("cache"))["it"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_a_second_use_builds_nothing_and_another_key_does(tmp_path: Path) -> None:
    calls: list[int] = []
    for key in ("a", "a", "b", "a", "b"):
        cached_arrays(key, counted(calls), tmp_path)
    assert len(calls) == 2


def test_equal_arrays_have_equal_checksums_and_unequal_ones_do_not(tmp_path: Path) -> None:
    first, second = (cached(key, counted([]), tmp_path).sha256 for key in ("a", "b"))
    third = cached("c", lambda: {"images": PIXELS + 1, "labels": np.array([3, 1])}, tmp_path).sha256
    assert first == second
    assert (third["images"] != first["images"]) and (third["labels"] == first["labels"])


@pytest.mark.parametrize("error", [DataError("a bad image"), OSError("a lost source"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing_and_its_error_passes_through(tmp_path: Path, error: BaseException) -> None:
    def build() -> dict[str, np.ndarray]:
        raise error

    with pytest.raises(type(error)) as caught:
        cached_arrays("a", build, tmp_path)
    assert caught.value is error
    assert leftovers(tmp_path) == []


def test_a_failure_between_two_arrays_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="plain numbers"):
        cached_arrays("a", lambda: {"images": PIXELS, "odd": np.array([object()])}, tmp_path)
    with pytest.raises(DataError, match="plain name"):
        cached_arrays("a", lambda: {"../images": PIXELS}, tmp_path)
    assert leftovers(tmp_path) == []


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _retype(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((2, 4, 3), np.int8))


def _reshape(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((4, 2, 3), np.uint8))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_truncate, _lengthen, _retype, _reshape, _empty, Path.unlink])
@pytest.mark.parametrize("victim", ["images.npy", "entry.json"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, victim: str, damage: Callable[[Path], None]) -> None:
    folder = cached("a", counted([]), tmp_path).folder
    damage(folder / victim)
    calls: list[int] = []
    np.testing.assert_array_equal(cached_arrays("a", counted(calls), tmp_path)["images"], PIXELS)
    assert calls == [1]
    assert leftovers(tmp_path) == [folder.name]


@pytest.mark.parametrize("note", ["[]", "{}", '{"format": 1, "key": "a", "arrays": []}', '{"format": 99}', "\x00"])
def test_a_foreign_description_is_not_believed(tmp_path: Path, note: str) -> None:
    folder = cached("a", counted([]), tmp_path).folder
    (folder / "entry.json").write_text(note)
    calls: list[int] = []
    cached_arrays("a", counted(calls), tmp_path)
    assert calls == [1]


def test_a_flipped_bit_is_found_when_asked_for(tmp_path: Path) -> None:
    entry = cached("a", counted([]), tmp_path)
    assert entry.damage() == []
    path = entry.folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert entry.damage() == ["images"]


def test_a_pickle_in_the_cache_is_never_read(tmp_path: Path) -> None:
    folder = cached("a", counted([]), tmp_path).folder
    np.save(folder / "images.npy", np.array([{"any": "object"}], object), allow_pickle=True)
    np.testing.assert_array_equal(cached_arrays("a", counted([]), tmp_path)["images"], PIXELS)


BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from fed_lorac.data.store import cached_arrays
cache, log = map(Path, sys.argv[1:])
def build():
    with log.open("a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    return {"images": np.arange(1000)}
print(int(cached_arrays("shared", build, cache)["images"].sum()))
"""


def test_processes_that_start_together_build_once_and_all_get_it(tmp_path: Path) -> None:
    cache, log = tmp_path / "cache", tmp_path / "log"
    command = [sys.executable, "-c", BUILDER, str(cache), str(log)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [worker.communicate(timeout=500)[0].strip() for worker in workers]
    assert answers == ["499500"] * 4
    assert log.read_text().count("built") == 1
    assert len(leftovers(cache)) == 1


DYING = """
import sys, time
from pathlib import Path
import numpy as np
from fed_lorac.data.store import cached_arrays
class Slow(dict):
    def items(self):
        yield "images", np.arange(1000)
        print("half", flush=True)
        time.sleep(600)
cached_arrays(sys.argv[2], Slow, Path(sys.argv[1]))
"""


@pytest.mark.parametrize("next_key", ["a", "another"])
def test_a_builder_killed_half_way_leaves_no_entry_and_is_swept_up_next_time(tmp_path: Path, next_key: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DYING, str(tmp_path), "a"], stdout=subprocess.PIPE, text=True
    ) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == "half\n"
        dying.send_signal(signal.SIGKILL)
    (half,) = leftovers(tmp_path)
    assert ".tmp-" in half
    folder = cached(next_key, counted([]), tmp_path).folder
    assert leftovers(tmp_path) == [folder.name]


def test_a_living_builder_is_not_swept_up(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DYING, str(tmp_path), "a"], stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == "half\n"
        start = time.monotonic()
        cached_arrays("another", counted([]), tmp_path)
        assert time.monotonic() - start < 60
        assert sum(".tmp-" in name for name in leftovers(tmp_path)) == 1
        living.kill()


def test_without_locks_builders_race_and_the_first_to_finish_wins(tmp_path: Path) -> None:
    """A build inside a build of another key, given the same place: what a file system without locks amounts to."""
    from fed_lorac.data.store import _build

    place = cached("a", counted([]), tmp_path).folder
    _build(place, "a", lambda: {"images": PIXELS + 1, "labels": np.array([3, 1])})
    np.testing.assert_array_equal(cached_arrays("a", counted([]), tmp_path)["images"], PIXELS)
    assert leftovers(tmp_path) == [place.name]


def test_a_cache_that_cannot_be_written_says_how_to_choose_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match="FED_LORAC_CACHE"):
        cached_arrays("a", counted([]), tmp_path / "file")


def test_a_full_disk_is_a_run_error_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel's own limit on a file's size stands in for a full disk: both end a write with an OSError."""
    script = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from fed_lorac.data.store import cached_arrays; from fed_lorac.errors import RunError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: cached_arrays('a', lambda: {'big': np.zeros(100_000)}, Path(sys.argv[1]))\n"
        "except RunError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout and "FED_LORAC_CACHE" in done.stdout
    assert leftovers(tmp_path) == []


@pytest.fixture
def environment() -> Iterator[Mapping[str, str]]:
    before = dict(os.environ)
    yield os.environ
    os.environ.clear()
    os.environ.update(before)


def test_the_cache_folder_is_the_argument_else_the_environments_else_the_users(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment.update(FED_LORAC_CACHE=str(tmp_path / "own"), XDG_CACHE_HOME=str(tmp_path / "xdg"), HOME="/home/cam")
    assert cache_folder(tmp_path) == tmp_path
    assert cache_folder() == tmp_path / "own"
    del environment["FED_LORAC_CACHE"]
    assert cache_folder() == tmp_path / "xdg" / "fed-lorac"
    del environment["XDG_CACHE_HOME"]
    assert cache_folder() == Path("/home/cam/.cache/fed-lorac")
