"""Laws of a run's folder: it has one owner, a resumed run is the one that began, and nothing that was done is lost.

Real processes throughout, forked from a server that has imported everything already.
"""

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pictures import image_folder
from PIL import Image
from reported import began, seen
from small_runs import rows, tiny, words

from fed_lorac.config import Config, resumed_config
from fed_lorac.errors import ConfigError, DataError, RunError
from fed_lorac.experiment import build
from fed_lorac.records.summaries import camera_accuracies, read_summary
from fed_lorac.reporting.alike import ComparedRun
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

LONG = words(run__rounds=2000, local__schedule="constant")
RESULTS = ("adapter.safetensors", "model.safetensors", "cameras.safetensors")


def options(settings: Sequence[str]) -> list[str]:
    return [part for word in settings for part in ("-c", word)]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def wait_for_rounds(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "rounds.jsonl").exists() or len(rows(folder / "rounds.jsonl")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    """A process whose second changes between two names would hide the fault; four of them leave it no room."""
    together = [began(["run", *options(words(run__rounds=1))], tmp_path, f"log-{i}") for i in range(4)]
    found = [seen(process, tmp_path / f"log-{i}") for i, process in enumerate(together)]
    assert [one.exit_code for one in found] == [0] * 4, found
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 4
    assert all(len(rows(folder / "rounds.jsonl")) == 1 for folder in folders)
    assert len({(folder / "adapter.safetensors").read_bytes() for folder in folders}) == 1


def test_of_two_runs_into_one_folder_one_is_refused_and_the_other_is_whole(tmp_path: Path) -> None:
    command = ["run", *options(words(run__rounds=6)), "--out", "one"]
    together = [began(command, tmp_path, f"log-{i}") for i in range(2)]
    found = [seen(process, tmp_path / f"log-{i}") for i, process in enumerate(together)]
    assert sorted(one.exit_code for one in found) == [0, 1], found
    refused = next(one for one in found if one.exit_code)
    assert "A run's folder has one owner" in refused.text or "already holds one" in refused.text
    run(tiny(run__rounds=6), tmp_path / "alone", Watch())
    for name in RESULTS:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert rows(tmp_path / "one" / "rounds.jsonl", "seconds") == rows(tmp_path / "alone" / "rounds.jsonl", "seconds")


def test_a_run_that_still_goes_cannot_be_resumed_and_a_killed_one_is_taken_over(tmp_path: Path) -> None:
    process = began(["run", *options(LONG), "--out", "run"], tmp_path, "log")
    wait_for_rounds(tmp_path / "run", 2)
    second = seen(began(["run", "--resume", "run"], tmp_path, "second"), tmp_path / "second")
    assert second.exit_code == 1
    assert f"held by process {process.pid} on {os.uname().nodename} (since 20" in second.text
    assert "To go on" not in second.text
    process.kill()
    process.join()
    done = [row["round"] for row in rows(tmp_path / "run" / "rounds.jsonl")]
    assert done == list(range(1, len(done) + 1))  # what the second did is no part of it

    third = began(["run", "--resume", "run"], tmp_path, "third")
    wait_for_rounds(tmp_path / "run", len(done) + 2)
    assert third.pid is not None
    os.kill(third.pid, signal.SIGINT)
    last = seen(third, tmp_path / "third")
    assert last.exit_code == 130
    assert f"process {process.pid} on" in last.text and "takes it over" in last.text
    assert f"To go on: fed-lorac run --resume {tmp_path / 'run'}" in last.text
    numbers = [row["round"] for row in rows(tmp_path / "run" / "rounds.jsonl")]
    assert numbers == list(range(1, len(numbers) + 1))


class Stopped(Watch):
    """Ctrl-C after the second round."""

    def round(self, row: dict[str, object], of: int) -> None:
        if row["round"] == 2:
            raise KeyboardInterrupt


def stopped(config: Config, out: Path) -> dict[str, bytes]:
    with pytest.raises(KeyboardInterrupt):
        run(config, out, Stopped())
    return tree(out)


def resumed(out: Path, *overrides: str) -> None:
    build._experiment.cache_clear()  # as in a new process
    run(resumed_config(out, None, overrides), out, Watch(), resume=True)


PICTURES = {
    "data__name": "folder",
    "data__image_size": 16,
    "run__rounds": 3,
    "fleet__cameras": 2,
    "fleet__per_round": 2,
    "fleet__images": 8,
    "fleet__eval_images": 6,
}


def one_more_image(root: Path) -> None:
    shutil.copy(root / "ant" / "00.png", root / "ant" / "99.png")


def other_pixels(root: Path) -> None:
    for path in (root / "bee").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def another_name(root: Path) -> None:
    (root / "bee").rename(root / "wasp")


@pytest.mark.parametrize("change", [one_more_image, other_pixels, another_name])
def test_a_run_does_not_go_on_over_other_images(tmp_path: Path, change: object) -> None:
    root = image_folder(tmp_path / "pictures")
    before = stopped(tiny(**PICTURES, data__root=root), tmp_path / "run")
    assert callable(change)
    change(root)
    with pytest.raises(RunError, match=r"its (images|classes) was .*, and is .* now"):
        resumed(tmp_path / "run")
    assert tree(tmp_path / "run") == before


def test_images_may_have_moved(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "pictures")
    config = tiny(**PICTURES, data__root=root)
    run(config, tmp_path / "whole", Watch())
    stopped(config, tmp_path / "run")
    (tmp_path / "moved").mkdir()
    root.rename(tmp_path / "moved" / "pictures")  # whose name is the data set's
    resumed(tmp_path / "run", f"data.root={tmp_path / 'moved' / 'pictures'}")
    for name in RESULTS:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert str(tmp_path / "moved") in (tmp_path / "run" / "config.toml").read_text()


def test_a_run_does_not_go_on_in_another_precision_and_says_how_it_may(tmp_path: Path) -> None:
    config = tiny(run__rounds=3)
    before = stopped(config, tmp_path / "run")
    with pytest.raises(RunError, match=r"its precision was fp32, and is bf16 now. .*run\.precision"):
        resumed(tmp_path / "run", "run.precision=bf16")
    with pytest.raises(RunError, match=r"cameras side by side was \d+, and is 1 now. Set run\.fleet\.block_size"):
        resumed(tmp_path / "run", "run.fleet.block_size=1")
    assert tree(tmp_path / "run") == before
    resumed(tmp_path / "run")


def test_a_run_does_not_go_on_over_another_base(tmp_path: Path) -> None:
    from fed_lorac.experiment.base_model import fresh_model
    from fed_lorac.runtime.tensor_files import write_tensors

    weights = tmp_path / "base.safetensors"
    for seed in (1, 2):
        path = tmp_path / f"{seed}.safetensors"
        write_tensors(path, fresh_model(tiny(run__seed=seed), 10).state_dict())
    shutil.copy(tmp_path / "1.safetensors", weights)
    before = stopped(tiny(run__rounds=3, model__weights=weights), tmp_path / "run")
    shutil.copy(tmp_path / "2.safetensors", weights)
    with pytest.raises(RunError, match=r"its base network was .* Put back the weights"):
        resumed(tmp_path / "run")
    assert tree(tmp_path / "run") == before


def test_a_config_edited_in_the_folder_is_noticed(tmp_path: Path) -> None:
    stopped(tiny(run__rounds=3), tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("lr = 0.05", "lr = 0.5"))
    with pytest.raises(ConfigError, match=r"local\.lr \(0\.05, now 0\.5\)"):
        resumed(tmp_path / "run")


def test_more_rounds_may_be_asked_for_and_are_those_of_a_longer_run(tmp_path: Path) -> None:
    constant = {"local__schedule": "constant"}
    run(tiny(**constant, run__rounds=2), tmp_path / "run", Watch())
    run(tiny(**constant, run__rounds=4), tmp_path / "whole", Watch())
    resumed(tmp_path / "run", "run.rounds=4")
    for name in RESULTS:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert rows(tmp_path / "run" / "rounds.jsonl", "seconds") == rows(tmp_path / "whole" / "rounds.jsonl", "seconds")
    with pytest.raises(RunError, match=r"4 rounds are done, and run.rounds is 3 now"):
        resumed(tmp_path / "run", "run.rounds=3")


def test_a_learning_rate_that_falls_over_other_rounds_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tiny(run__rounds=2), tmp_path / "run", Watch())
    resumed(tmp_path / "run", "run.rounds=3")
    assert "which were 2 and are 3 now" in caplog.text


@pytest.mark.parametrize("every", [0, 1])
def test_rows_without_a_checkpoint_are_never_cut(tmp_path: Path, every: int) -> None:
    stopped(tiny(run__rounds=3, checkpoint_every=every), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints", ignore_errors=True)
    before = tree(tmp_path / "run")
    with pytest.raises(RunError, match="has 2 rounds and none"):
        resumed(tmp_path / "run")
    assert tree(tmp_path / "run") == before


def test_a_run_that_fails_before_it_has_measured_leaves_nothing(tmp_path: Path) -> None:
    found = seen(began(["run", "-c", "data.name=folder", "-c", "data.root=nowhere"], tmp_path, "log"), tmp_path / "log")
    assert found.exit_code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_users_own_config_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[run]\nrounds = 1\n")
    with pytest.raises(RunError, match="already exists and differs"):
        run(tiny(), tmp_path, Watch())
    assert (tmp_path / "config.toml").read_text() == "[run]\nrounds = 1\n"


def test_a_run_that_cannot_begin_takes_no_others_place(tmp_path: Path):
    out = tmp_path / "run"
    run(tiny(run__rounds=1), out, Watch())
    before = tree(out)
    with pytest.raises(DataError):
        run(tiny(model__weights=str(tmp_path / "nowhere.safetensors")), out, Watch(), overwrite=True)
    assert tree(out) == before


class Dies(Watch):
    """Any fault but Ctrl-C, once a round's rows are written."""

    def round(self, row: dict[str, object], of: int) -> None:
        raise ZeroDivisionError


def test_a_summary_is_compared_by_its_own_rounds_where_its_run_has_gone_on(tmp_path: Path):
    config = tiny(run__rounds=1, local__schedule="constant", local__lr=0.3)
    run(config, tmp_path / "a", Watch())
    first = {row["camera"]: row["accuracy"] for row in rows(tmp_path / "a" / "cameras.jsonl")}
    with pytest.raises(ZeroDivisionError):
        run(tiny(run__rounds=3, local__schedule="constant", local__lr=0.3), tmp_path / "a", Dies(), resume=True)
    assert len(rows(tmp_path / "a" / "rounds.jsonl")) == 2
    compared = ComparedRun.read(tmp_path / "a", target=0.01)
    assert compared.cameras == first != camera_accuracies(tmp_path / "a", 2)


def test_no_summary_stands_beside_another_ends_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(tiny(run__rounds=1, local__schedule="constant"), tmp_path / "a", Watch())

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fed_lorac.runtime.tensor_files.write_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(run__rounds=2, local__schedule="constant"), tmp_path / "a", Watch(), resume=True)
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"A finished run has a summary\.json"):
        read_summary(tmp_path / "a")
    run(tiny(run__rounds=2, local__schedule="constant"), tmp_path / "a", Watch(), resume=True)
    assert read_summary(tmp_path / "a")["rounds"] == 2
