"""Laws of going on after a kill: the same bytes as if nothing had happened, whenever it came."""

import json
import random
from itertools import count
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict
from interrupted import TENSORS, Ended, check_equal
from killed import killed_after, killed_at_write, seconds_of
from safetensors.torch import load_file
from small_runs import tiny, words

import fed_lorac as fl
from fed_lorac.config import RayWorkers, load_config, resumed_config
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.records.run_folder import can_go_on
from fed_lorac.records.summaries import read_summary, went_on
from fed_lorac.reporting.tables import notes
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.simulation.resume import packed_tensors, unpacked_tensors


class Measuring(Watch):
    """Ctrl-C as the update is first measured."""

    def phase(self, what: str, total: int) -> None:
        if what == "evaluate":
            raise KeyboardInterrupt


# Half the cameras away or lost now and then, svd with its residual: all that a checkpoint must hold is in use.
SETTINGS = words(run__rounds=5, fleet__devices="limited", availability=0.8, dropout=0.2, strategy__quorum=0.1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An uninterrupted run, and its seconds once the server that processes are forked from is warm."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    seconds_of(SETTINGS, folder.with_name("warm"))
    return folder, seconds_of(SETTINGS, folder)


@pytest.mark.parametrize(
    ("strategy", "every"),
    [
        ("merged", 1),
        ("factor-fedavg", 2),
        ("fedavg", 1),
        pytest.param("merged", 2, marks=pytest.mark.slow),
        pytest.param("factor-fedavg", 1, marks=pytest.mark.slow),
        pytest.param("fedavg", 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_interrupted_goes_on_to_the_same_end(tmp_path: Path, strategy: str, every: int):
    method = "full" if strategy == "fedavg" else "lora-c"
    config = tiny(run__rounds=4, strategy__name=strategy, adapter__method=method, checkpoint_every=every, block_size=2)
    run(config, tmp_path / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended(3))
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["rounds"] == 3
    watch = Ended(0)
    run(config, tmp_path / "cut", watch, resume=True)
    assert watch.came == 3 - 3 % every
    check_equal(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path, whole: tuple[Path, float]):
    folder, seconds = whole
    moments, kills = random.Random(3), 0
    for number in count():
        if kills >= 20:
            break
        out = tmp_path / str(number)
        kills += killed_after(moments.uniform(0, seconds), SETTINGS, out, resume=False)
        while not (out / "summary.json").exists():  # every second one is killed once more before it may end
            began = (out / "config.toml").exists()
            kills += killed_after(moments.choice([600, moments.uniform(0, seconds)]), SETTINGS, out, resume=began)
        check_equal(out, folder)


@pytest.mark.slow
def test_a_kill_in_mid_write_changes_nothing(tmp_path: Path, whole: tuple[Path, float]):
    write = 1
    while killed_at_write(write, SETTINGS, out := tmp_path / str(write)):
        if write > 1:  # the first is config.toml: a run that has none never began
            killed_after(600, SETTINGS, out, resume=True)
            check_equal(out, whole[0])
        write += 3
    assert write > 30


def test_a_finished_run_is_finished_again(tmp_path: Path):
    run(tiny(run__rounds=2), tmp_path / "run", Watch())
    before = {name: (tmp_path / "run" / name).read_bytes() for name in (*TENSORS, "summary.json", "rounds.jsonl")}
    run(tiny(run__rounds=2), tmp_path / "run", Watch(), resume=True)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_a_run_killed_before_its_first_checkpoint_goes_on_with_what_is_asked_now(tmp_path: Path):
    for name, text in (("config.toml", tiny(run__rounds=1).to_toml()), ("rounds.jsonl", ""), ("cameras.jsonl", "")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    run(resumed_config(tmp_path, None, ["run.rounds=2"]), tmp_path, Watch(), resume=True)
    assert load_config(tmp_path / "config.toml").run.rounds == read_summary(tmp_path)["rounds"] == 2


def test_results_of_an_earlier_end_are_no_results_of_a_run_that_went_on(tmp_path: Path):
    run(tiny(run__rounds=2), tmp_path, Watch())
    assert not can_go_on(tmp_path)
    summary = json.loads((whole := tmp_path / "summary.json").read_text())
    for older in ({"rounds": 1}, {"interrupted": True}):
        whole.write_text(json.dumps(summary | older))
        assert can_go_on(tmp_path)
    run(resumed_config(tmp_path), tmp_path, Watch(), resume=True)
    assert not can_go_on(tmp_path) and read_summary(tmp_path)["rounds"] == 2


@pytest.mark.parametrize("settles", [False, True], ids=["clusters", "layers"])
def test_a_round_that_was_interrupted_leaves_neither_clusters_nor_layers(tmp_path: Path, settles: bool):
    clustered = {"strategy__name": "clustered", "by": "similarity", "clusters": 2}
    layers = {"adapter__layers": "auto", "adapter__budget_bytes": 9000}
    with pytest.raises(KeyboardInterrupt):
        run(tiny(run__rounds=2, **(layers if settles else clustered)), tmp_path, Measuring())
    found = read_summary(tmp_path)
    assert found["rounds"] == 0 and not found["groups"]
    assert not load_file(tmp_path / "adapter.safetensors")


def test_a_camera_that_never_answered_is_new_after_a_checkpoint():
    states = {1: RecordDict(), 2: RecordDict({"config": ConfigRecord({"round": 1})})}
    assert unpacked_tensors(packed_tensors(states, {}))[0].keys() == {2}


def test_more_rounds_under_a_falling_rate_are_said_wherever_the_run_is_shown(tmp_path: Path):
    for name, settings in (("falls", {"local__schedule": "cosine"}), ("stays", {"local__schedule": "constant"})):
        for rounds in (1, 2, 2):
            folder, more = tmp_path / name, {"resume": True} if (tmp_path / name).is_dir() else {}
            run(tiny(run__rounds=rounds, **settings), folder, Watch(), **more)
    found = {name: read_summary(tmp_path / name) for name in ("falls", "stays")}
    said = "asked for 1 rounds before it went on to 2"
    assert said in (went_on(found["falls"]) or "") and went_on(found["stays"]) is None
    assert any(said in note for note in notes(found["falls"])) and said in fl.compare([tmp_path / "falls"])


def test_a_ledger_that_lost_rows_is_refused(tmp_path: Path):
    run(tiny(run__rounds=2), tmp_path, Watch())
    (tmp_path / "rounds.jsonl").write_bytes(b"")
    with pytest.raises(RunError, match="lost rows"):
        run(tiny(run__rounds=2), tmp_path, Watch(), resume=True)


def test_a_changed_config_is_refused_by_the_names_of_its_keys(tmp_path: Path):
    (tmp_path / "config.toml").write_text(load_config(None, SETTINGS).to_toml())
    with pytest.raises(ConfigError, match=r"run\.seed \(0, now 7\), local\.lr \(0\.05, now 0\.5\)"):
        resumed_config(tmp_path, None, ["local.lr=0.5", "run.seed=7", "run.workers=2"])
    with pytest.raises(ConfigError, match=r"model\.resnet8\.width"):
        resumed_config(tmp_path, "quickstart")
    free = resumed_config(tmp_path, None, ["run.workers=3", "run.ray.address=10.0.0.1:6379"])
    assert (free.run.workers, free.run.table(RayWorkers).address, free.run.rounds) == (3, "10.0.0.1:6379", 5)


def test_a_folder_without_a_run_cannot_be_gone_on_with(tmp_path: Path):
    with pytest.raises(RunError, match=r"No run to resume in .* it has no config\.toml"):
        resumed_config(tmp_path)


def test_flowers_runtime_has_no_checkpoints_to_go_on_from(tmp_path: Path):
    with pytest.raises(ConfigError, match="fleet"):
        run(tiny(run__engine="flower"), tmp_path, Watch(), resume=True)
