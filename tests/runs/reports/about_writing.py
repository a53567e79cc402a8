"""Reports about places that cannot be written, and about what a run leaves in its folder."""

import os
import resource
from pathlib import Path

from reported import SHORT, Case, began, seen
from small_runs import tiny

from fed_lorac.config import load_config
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

TINY = ("-c", "model.weights=none", "-c", "width=4")
PRETRAIN = ("pretrain", *TINY, "--epochs", "1")
SMALL_FILES = 20_000  # bytes: more than a ledger here, less than a checkpoint or a base


def with_small_files() -> None:
    """What a full disk says of the larger files, "File too large", without a disk to fill."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, SMALL_FILES))


def with_a_full_cache(folder: Path, words: list[str]) -> list[str]:
    """The words, once the cache has all images: else it is the cache that finds no room."""
    settings = [word for word in (*SHORT, *TINY) if word != "-c"]
    run(load_config(None, settings), folder.parent / "before", Watch())
    return words


def without_home() -> None:
    """A user whom the system does not know, with the rights of the one who runs the tests."""
    for name in ("HOME", "XDG_CACHE_HOME", "FED_LORAC_CACHE"):
        os.environ.pop(name, None)
    if os.geteuid() == 0:
        os.setresuid(12_345, 0, 0)


def nothing_is_left(folder: Path) -> None:
    """Not even a folder for runs that did not begin."""
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def a_finished_run(folder: Path) -> list[str]:
    run(tiny(run__rounds=1), folder / "taken", Watch())
    return ["run", *SHORT, "--out", "taken"]


def a_base_that_is_there(folder: Path) -> list[str]:
    (folder / "base.safetensors").write_bytes(b"mine")
    return [*PRETRAIN, "--out", "base.safetensors"]


def the_base_is_as_it_was(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["base.safetensors"]
    assert (folder / "base.safetensors").read_bytes() == b"mine"


def a_base_where_a_folder_is(folder: Path) -> list[str]:
    (folder / "base.safetensors").mkdir()
    return [*PRETRAIN, "--out", "base.safetensors"]


def an_export_over_another_file(folder: Path) -> list[str]:
    run(tiny(run__rounds=1), folder / "run", Watch())
    (folder / "mine.safetensors").write_bytes(b"mine")
    return ["export", "run", "--format", "safetensors", "--out", "mine.safetensors"]


def a_run_whose_images_are_cached(folder: Path) -> list[str]:
    command = ["run", *SHORT, *TINY, "--out"]
    first = seen(began([*command, "first"], folder, "first.log"), folder / "first.log")
    assert first.exit_code == 0, first.text
    return [*command, "run"]


def the_run_goes_on_to_the_same_end(folder: Path) -> None:
    assert not list(folder.rglob("*.tmp"))
    last = seen(began(["run", "--resume", "run"], folder, "last.log"), folder / "last.log")
    assert last.exit_code == 0, last.text
    for name in ("adapter.safetensors", "model.safetensors", "cameras.safetensors"):
        assert (folder / "run" / name).read_bytes() == (folder / "first" / name).read_bytes()


CASES = [
    Case(
        "a folder that holds a run is refused before anything is loaded",
        a_finished_run,
        exit_code=1,
        says=("A run has a folder of its own", "taken already holds one", "--resume"),
        never=("Accuracy",),
    ),
    Case(
        "a run into a place that cannot be written",
        lambda folder: ["run", *SHORT, "--out", "/proc/runs/one"],
        exit_code=1,
        says=("RunError", "Output must be writable; /proc/runs/one"),
    ),
    Case(
        "a run into a path that goes through a file",
        lambda folder: (folder / "file").touch() or ["run", *SHORT, "--out", "file/run"],  # type: ignore[func-returns-value]
        exit_code=1,
        says=("RunError", "a part of this one is a file"),
    ),
    Case(
        "a run on a disk without room for its results goes on when there is",
        a_run_whose_images_are_cached,
        exit_code=1,
        says=(
            "RunError",
            "Output must be writable",
            "File too large",
            "ulimit -f",
            "To go on: fed-lorac run --resume",
        ),
        become=with_small_files,
        check=the_run_goes_on_to_the_same_end,
    ),
    Case(
        "a run on a disk without room for the cache",
        lambda folder: ["run", *SHORT, *TINY],
        exit_code=1,
        says=("RunError", "Output must be writable", "File too large", "FED_LORAC_CACHE"),
        environment={"FED_LORAC_CACHE": "cache"},
        become=with_small_files,
        check=lambda folder: _assert_equal([path.name for path in folder.iterdir()], ["cache"]),
    ),
    Case(
        "pretraining to a place that cannot be written is refused before it trains",
        lambda folder: [*PRETRAIN, "--out", "/proc/nowhere/base.safetensors"],
        exit_code=1,
        says=("RunError", "Output must be writable; /proc/nowhere/base.safetensors"),
        never=("loss", "clean test accuracy"),
    ),
    Case(
        "pretraining to a disk without room is refused before it trains",
        lambda folder: with_a_full_cache(folder, [*PRETRAIN, "--out", "base.safetensors"]),
        exit_code=1,
        says=("RunError", "base.safetensors", "File too large"),
        never=("loss", "clean test accuracy"),
        become=with_small_files,
        check=nothing_is_left,
    ),
    Case(
        "pretraining does not write over a file unasked",
        a_base_that_is_there,
        exit_code=1,
        says=("An existing file is kept", "--overwrite"),
        never=("loss",),
        check=the_base_is_as_it_was,
    ),
    Case(
        "pretraining to the name of a folder",
        a_base_where_a_folder_is,
        exit_code=1,
        says=("RunError", "a folder has this one"),
        never=("loss",),
    ),
    Case(
        "an export does not write over a file unasked",
        an_export_over_another_file,
        exit_code=1,
        says=("An existing file is kept", "--overwrite"),
        check=lambda folder: _assert_equal((folder / "mine.safetensors").read_bytes(), b"mine"),
    ),
    Case(
        "an unknown user's home in --out",
        lambda folder: ["run", *SHORT, "--out", "~nobody-here/run"],
        exit_code=1,
        says=("RunError", "'~nobody-here/run'", "Write the whole path"),
    ),
    Case(
        "an unknown user's home in a config's path",
        lambda folder: ["run", "~nobody-here/my.toml"],
        exit_code=1,
        says=("RunError", "'~nobody-here/my.toml'"),
    ),
    Case(
        "an unknown user's home in data.root",
        lambda folder: ["run", "-c", "data.name=folder", "-c", "data.root=~nobody-here/images"],
        exit_code=1,
        says=("RunError", "'~nobody-here/images'"),
        check=nothing_is_left,
    ),
    Case(
        "an unknown user's home in model.weights",
        lambda folder: ["run", *SHORT, "-c", "model.weights=~nobody-here/base.safetensors"],
        exit_code=1,
        says=("RunError", "'~nobody-here/base.safetensors'"),
        check=nothing_is_left,
    ),
    Case(
        "an unknown user's home in FED_LORAC_CACHE",
        lambda folder: ["run", *SHORT],
        exit_code=1,
        says=("RunError", "'~nobody-here/cache'"),
        environment={"FED_LORAC_CACHE": "~nobody-here/cache"},
        check=nothing_is_left,
    ),
    Case(
        "a user without a home folder",
        lambda folder: ["run", *SHORT],
        exit_code=1,
        says=("RunError", "FED_LORAC_CACHE"),
        become=without_home,
        check=nothing_is_left,
    ),
    Case(
        "a cache in a place that cannot be written",
        lambda folder: ["run", *SHORT],
        exit_code=1,
        says=("RunError", "/proc/cache", "FED_LORAC_CACHE"),
        environment={"FED_LORAC_CACHE": "/proc/cache"},
        check=nothing_is_left,
    ),
]


def _assert_equal(found: object, wanted: object) -> None:
    assert found == wanted
