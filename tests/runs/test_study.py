"""Laws of a study: nothing is run twice, what was left goes on, what fails is a row, tables are the runs' own."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats
from small_runs import ROOT, environment
from small_studies import FULL, SETTINGS, STUDY

import fed_lorac as fl
from fed_lorac.errors import ConfigError, RunError, UnreadableError
from fed_lorac.reporting.gain import recovered_share
from fed_lorac.studies import running as running_room
from fed_lorac.studies.conduct import conduct
from fed_lorac.studies.definition import Trial
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.read import parse_study
from fed_lorac.studies.watch import StudyWatch
from fed_lorac.studies.weighing import bytes_in_words

do = running_room._do
APART = {"fleet.validation_share": 0.2}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> fl.StudyResult:
    return fl.study(STUDY, tmp_path_factory.mktemp("study") / "out", progress=False)


def marks(study: fl.StudyResult) -> dict[Path, int]:
    """When each file of each run was last written."""
    return {file: file.stat().st_mtime_ns for file in (study.path / "runs").rglob("*") if file.is_file()}


def test_a_row_says_what_its_run_found(done: fl.StudyResult) -> None:
    assert done.runs["status"].eq("finished").all() and len(done.runs) == 6
    for row in done.runs.itertuples():
        run = done.run(str(row.run))
        assert (row.accuracy, row.total_bytes) == (run.summary["adapted_accuracy"], run.summary["total_bytes"])
        assert row.share_of_full_fp32 == run.summary["total_bytes"] / run.summary["full_fp32_total_bytes"]
        full = done.runs.query("arm == 'full' and seed == @row.seed").iloc[0]
        assert row.full_accuracy == full.accuracy
        share = recovered_share(row.zero_byte_accuracy, row.accuracy, full.accuracy)
        assert (pd.isna(row.gain_recovered) and share is None) or row.gain_recovered == share
        rounds = done.rounds.query("run == @row.run")
        assert rounds["accuracy"].tolist() == run.rounds["accuracy"].tolist() and set(rounds["arm"]) == {row.arm}


def test_csv_and_parquet_are_one_table(done: fl.StudyResult) -> None:
    for name, table in (("study", done.runs), ("rounds", done.rounds)):
        read = pd.read_csv(done.path / f"{name}.csv").convert_dtypes()
        assert list(read.columns) == list(table.columns) and len(read) == len(table)
        pd.testing.assert_series_equal(read["accuracy"], table["accuracy"], check_dtype=False, rtol=1e-12)
    assert done.runs.columns[:3].tolist() == ["arm", "seed", "adapter.rank"]


def test_what_is_finished_is_not_run_again_and_a_changed_setting_is_another_run(
    done: fl.StudyResult, tmp_path: Path
) -> None:
    before = marks(done)
    again = fl.study(STUDY, done.path, progress=False)
    assert marks(again) == before and again.runs.equals(done.runs)
    renamed = {**STUDY, "seeds": [0], "arms": {"all": FULL, "new": {"adapter.rank": 1, "local.lr": 0.01}}}
    other = fl.study(renamed, done.path, progress=False)
    assert before.items() <= marks(other).items()
    assert len(set(other.runs["run"]) - set(done.runs["run"])) == 1 and len(other.runs) == 2


def test_a_run_of_before_a_setting_came_is_the_run_with_its_default(done: fl.StudyResult, tmp_path: Path) -> None:
    study = {**STUDY, "seeds": [0], "arms": {"lora-c": {"adapter.rank": 1, "local.lr": 0.02}}}
    first = fl.study(study, tmp_path / "out", progress=False)
    [folder] = (first.path / "runs").iterdir()
    config = folder / "config.toml"
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    older = [line for line in lines if not line.startswith("deal = ")]
    assert len(older) == len(lines) - 1
    config.write_text("".join(older), encoding="utf-8")
    folder = folder.rename(folder.with_name(f"{folder.name[:-12]}{'0' * 12}"))
    before = marks(first)
    again = fl.study(study, first.path, progress=False)
    assert marks(again) == before and again.runs["run"].tolist() == ["0" * 12]
    assert again.run("0" * 12).path == folder and again.rounds["run"].unique().tolist() == ["0" * 12]
    other = fl.study({**study, "settings": {**SETTINGS, "fleet.deal": "overlapping"}}, first.path, progress=False)
    assert len(list((first.path / "runs").iterdir())) == 2 and other.runs["run"].tolist() != ["0" * 12]


def test_the_table_has_the_mean_and_interval_over_seeds(done: fl.StudyResult) -> None:
    lines = fl.load_study(fl.study(STUDY, done.path, progress=False).path).table().splitlines()
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    rows = [dict(zip(head, (cell.strip() for cell in line.strip("|").split("|")), strict=True)) for line in lines[2:5]]
    assert [(row["arm"], row["adapter.rank"], row["seeds"]) for row in rows] == [
        ("full", "", "2"),
        ("lora-c", "1", "2"),
        ("lora-c", "2", "2"),
    ]
    accuracy = 100 * done.runs.query("arm == 'full'")["accuracy"]
    low, high = stats.t.interval(0.95, 1, loc=accuracy.mean(), scale=stats.sem(accuracy))
    assert rows[0]["accuracy"] == f"{accuracy.mean():.1f} ± {(high - low) / 2:.1f}"


def test_arms_over_one_fleet_are_tested_camera_by_camera(done: fl.StudyResult) -> None:
    study = fl.load_study(fl.study(STUDY, done.path, progress=False).path)
    rows = [*csv.DictReader(io.StringIO(study.table("csv")))]

    def of(row: Any) -> pd.Series:
        cameras = study.run(row.run).cameras
        return cameras[cameras["round"] == cameras["round"].max()].set_index("camera")["accuracy"]

    full = {row.seed: of(row) for row in study.runs.query("arm == 'full'").itertuples()}
    for row, rank in zip(rows, ("", 1, 2), strict=True):
        if not rank:
            assert row["difference, points"] == row["p"] == ""
            continue
        arm = study.runs[study.runs["adapter.rank"] == rank]
        found = pd.DataFrame({one.seed: of(one) - full[one.seed] for one in arm.itertuples()})
        assert float(row["difference, points"]) == pytest.approx(100 * found.mean().mean())
        half = stats.ttest_rel(found.mean(), [0, 0]).confidence_interval().high - found.mean().mean()
        assert float(row["difference, points, half of 95 % interval"] or 0) == pytest.approx(100 * half)
    assert study.table("csv", against="lora-c") != study.table("csv")
    assert study._repr_html_().count("<tr>") == 1 + len(rows)
    with pytest.raises(ConfigError, match="tested against one of them: full, lora-c; got 'rank'"):
        study.table(against="rank")


def test_a_target_says_how_many_bytes_each_arm_took_to_reach_it(done: fl.StudyResult) -> None:
    study = fl.load_study(fl.study(STUDY, done.path, progress=False).path)
    sent = study.rounds[["run", "accuracy"]].assign(
        sent=study.rounds["uplink_frame_bytes"] + study.rounds["downlink_frame_bytes"]
    )
    for target in (0.0, float(study.runs["accuracy"].max())):
        rows = [*csv.DictReader(io.StringIO(study.table("csv", target=target)))]
        text = study.table(target=target).splitlines()[2:]
        for row, line, (_, arm) in zip(
            rows, text, study.runs.groupby(["arm", "adapter.rank"], dropna=False), strict=False
        ):
            took = [  # each run has one round
                sent.loc[sent["run"] == one.run, "sent"].item() for one in arm.itertuples() if one.accuracy >= target
            ]
            found = row[f"bytes to {100 * target:g} %"]
            assert float(found or 0) == (sum(took) / len(took) if took else 0)
            assert (f"reached by {len(took)} of 2 seeds" if took else "not reached") in line
    assert "bytes to" not in study.table()


def test_bytes_are_known_before_anything_is_run(done: fl.StudyResult, tmp_path: Path) -> None:
    trials = parse_study("s", STUDY, tmp_path).trials()
    said, runs = bytes_in_words(trials), done.runs.set_index("run")
    assert len(said) == len(trials) == 6
    for trial in trials:
        row, words = runs.loc[trial.digest], said[trial.digest]
        total, share = int(words.split()[0].replace(",", "")), float(words.split()[2].removesuffix("%")) / 100
        assert total == pytest.approx(row.total_bytes, rel=2e-3) and share == pytest.approx(
            row.share_of_full_fp32, rel=0.01
        )
    absent = {**STUDY, "settings": {**SETTINGS, "data.name": "folder", "data.root": str(tmp_path / "none")}}
    for words in bytes_in_words(parse_study("s", absent, tmp_path).trials()).values():
        assert words.startswith("bytes not known: ") and "none" in words


def test_tuning_chooses_the_most_accurate_value_of_each_arm(tmp_path: Path) -> None:
    tune = {"grid": {"local.lr": [1e-6, 0.05]}, "seed": 7, "settings": APART}
    study = {"settings": SETTINGS, "arms": {"full": FULL}, "tune": tune}
    found = fl.study(study, tmp_path / "out", progress=False)
    tuning = pd.read_csv(found.path / "tuning.csv")
    assert (tuning["local.lr"].tolist(), tuning["seed"].tolist()) == ([1e-6, 0.05], [7, 7])
    assert found.runs["local.lr"].tolist() == [tuning.loc[tuning["accuracy"].idxmax(), "local.lr"]]
    before = marks(found)
    assert marks(fl.study(study, found.path, progress=False)) == before
    fixed = {"settings": {**SETTINGS, "local.lr": 0.05}, "arms": {"full": FULL}}  # the same study, no longer tuned
    again = fl.study(fixed, found.path, progress=False)
    assert again.tuning is None and "Tuned" not in again.table() and not list(found.path.glob("tuning*"))


def test_a_setting_may_be_a_number_here_and_a_list_there(tmp_path: Path) -> None:
    """A rank, and ranks of a fleet in turn: text in the table, as one column has one type."""
    study = {"settings": SETTINGS, "arms": {"lora-c": {"grid": {"adapter.rank": [2, "1, 2"]}}}}
    found = fl.study(study, tmp_path / "out", progress=False)
    assert found.runs["adapter.rank"].tolist() == ["2", "1, 2"] and found.runs.status.eq("finished").all()


def test_a_best_value_at_the_end_of_those_tried_is_told(tmp_path: Path) -> None:
    tune = {"grid": {"local.lr": [1e-7, 1e-6, 10.0]}, "settings": {"run.rounds": 1, **APART}}
    study = {"settings": {**SETTINGS, "run.rounds": 2}, "arms": {"full": FULL}, "tune": tune}
    found = fl.study(study, tmp_path / "out", progress=False)
    [best] = found.runs["local.lr"]
    assert found.tuning is not None and len(found.tuning) == 3
    for end, more in ((1e-7, "smaller"), (10.0, "larger")):
        told = f"full: the best local.lr is at the end of those tried, {end:g}; try {more} ones."
        assert (told in found.table()) == (best == end)


def test_where_the_weather_changes_a_row_has_means_over_the_rounds(tmp_path: Path) -> None:
    settings = {**SETTINGS, "run.rounds": 2, "run.evaluate_every": 1, "local.objective": "entropy"}
    study = {"settings": settings, "arms": {"stays": {}, "walks": {"fleet.schedule": "walk"}}}
    found = fl.study(study, tmp_path / "out", progress=False)
    stays, walks = (row for row in found.runs.itertuples())
    summary = found.run(str(walks.run)).summary
    assert walks.accuracy_over_rounds == summary["over_rounds"]["adapted"]
    assert walks.zero_byte_over_rounds == summary["over_rounds"]["zero_byte"]
    assert pd.isna(stays.accuracy_over_rounds) and stays.online_accuracy > 0
    assert pd.isna(walks.full_over_rounds) and pd.isna(walks.gain_over_rounds)  # full fine-tuning is not in the study
    assert "| over the rounds | zero-byte, over the rounds | online |" in found.table()


def test_a_gain_over_the_rounds_is_of_full_fine_tuning_in_the_same_weather(tmp_path: Path) -> None:
    settings = {**SETTINGS, "run.rounds": 2, "run.evaluate_every": 1, "fleet.schedule": "walk", "local.lr": 0.05}
    found = fl.study({"settings": settings, "arms": {"full": FULL, "lora-c": {}}}, tmp_path / "out", progress=False)
    full, lora = (found.run(run).summary["over_rounds"] for run in found.runs.run)
    for row, own in zip(found.runs.itertuples(), (full, lora), strict=True):
        assert row.full_over_rounds == full["adapted"]
        share = recovered_share(own["zero_byte"], own["adapted"], full["adapted"])
        assert (pd.isna(row.gain_over_rounds) and share is None) or row.gain_over_rounds == share


def test_a_run_that_several_ask_for_is_run_once_and_serves_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def counted(config: Any, folder: Any, goes_on: bool, until: int | None) -> None:
        done.append(str(folder))
        do(config, folder, goes_on, until)

    monkeypatch.setattr(running_room, "_do", counted)
    tune = {"grid": {"local.lr": [0.001, 0.05]}, "settings": {"run.rounds": 1, **APART}}
    study = {"settings": {**SETTINGS, "run.rounds": 2}, "arms": {"two": {}, "one": {"run.rounds": 1}}, "tune": tune}
    watch = Counted()
    found = conduct(parse_study("s", study, tmp_path), tmp_path / "out", watch=watch)
    tuning = pd.read_csv(found.path / "tuning.csv")
    assert tuning["arm"].tolist() == ["two", "two", "one", "one"] and tuning["status"].eq("finished").all()
    assert tuning["run"].tolist()[:2] == tuning["run"].tolist()[2:]  # both arms are tuned with one round
    assert len(done) == len(set(done)) == 4 == watch.runs
    assert (watch.total, watch.done) == (4, 4)  # two of tuning, two of the table


def test_gains_are_over_the_source_where_there_is_no_batch_norm_to_adapt(tmp_path: Path) -> None:
    settings = {**SETTINGS, "model.weights": "pretrain", "model.pretrain.epochs": 1, "model.resnet8.norm": "group"}
    arms = {"full": {**FULL, "local.lr": 0.05}, "unlabelled": {**FULL, "local.objective": "entropy"}, "lora-c": {}}
    runs = fl.study({"settings": settings, "arms": arms}, tmp_path / "out", progress=False).runs
    full, row = runs.iloc[0], runs.iloc[2]
    assert runs["zero_byte_accuracy"].isna().all() and set(runs["full_accuracy"]) == {full.accuracy}
    wanted = recovered_share(row.source_accuracy, row.accuracy, full.accuracy)
    assert (pd.isna(row.gain_recovered) and wanted is None) or row.gain_recovered == wanted
    assert full.accuracy <= full.source_accuracy or full.gain_recovered == 1


def test_gains_are_held_against_the_most_accurate_settings_of_full_fine_tuning(tmp_path: Path) -> None:
    grid = {"batch_norm.mode": ["frozen", "local"]}  # one fleet, on which full fine-tuning is run twice a seed
    study = {"seeds": [0, 1], "settings": SETTINGS, "grid": grid, "arms": {"full": {**FULL, "local.lr": 0.05}}}
    found = fl.study(study, tmp_path / "out", progress=False)
    modes = found.runs.groupby("batch_norm.mode")
    best = modes.accuracy.mean().idxmax()
    reference = found.runs[found.runs["batch_norm.mode"] == best].set_index("seed").accuracy
    assert found.runs.full_accuracy.tolist() == found.runs.seed.map(reference).tolist()
    assert "with the settings that are most accurate over the seeds" in found.table()
    compared = csv.DictReader(io.StringIO(fl.compare([found.run(run).path for run in found.runs.run], format="csv")))
    gains = {row[""].rpartition("=")[2]: row["gain recovered"] for row in compared if "batch_norm.mode=" in row[""]}
    for mode, its in modes:
        mean = its.gain_recovered.mean()
        assert gains[mode] == "" if pd.isna(mean) else float(gains[mode]) == pytest.approx(100 * mean)


class Counted(StudyWatch):
    """What a study's bar shows."""

    total = done = runs = 0

    def begin(self, trials: int, done: int, work: float) -> None:
        self.total, self.done = trials, done

    def ended(self, trial: Trial, error: str | None, work: float) -> None:
        assert error is None
        self.done, self.runs = self.done + 1, self.runs + 1


def test_a_run_that_fails_is_a_row_with_its_error_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "base.safetensors"
    study = {"settings": SETTINGS, "arms": {"bad": {"model.weights": str(weights)}, "good": {}}}
    first = fl.study(study, tmp_path / "out", progress=False)
    assert first.runs["status"].tolist() == ["failed", "finished"]
    assert "base.safetensors is not there" in first.runs["error"][0] and "- failed: bad" in first.table()
    monkeypatch.setattr(running_room, "_do", lambda *_: pytest.fail("a finished run, or a bad one, is run again"))
    again = fl.study({**study, "arms": {"good": {}}}, tmp_path / "out", progress=False)
    assert again.runs["status"].tolist() == ["finished"]


@pytest.mark.slow
def test_the_command_prints_the_table_and_ends_with_1_where_a_run_failed(tmp_path: Path) -> None:
    weights = tmp_path / "base.safetensors"
    command = [sys.executable, "-m", "fed_lorac", "study", "study.toml", "--out", "out"]
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in SETTINGS.items())
    (tmp_path / "study.toml").write_text(
        f"[settings]\n{text}\n[arms.bad]\nmodel.weights = {json.dumps(str(weights))}\n[arms.good]\n"
    )
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), check=False)
    assert ended.returncode == 1 and "2 runs, 0 of them finished before" in ended.stderr
    assert "| good | 1 |" in ended.stdout
    planned = subprocess.run(
        [*command, "--dry-run"], cwd=tmp_path, capture_output=True, text=True, env=environment(), check=True
    )
    assert "failed    bad, seed 0" in planned.stdout and "1 of 2 runs to do; about " in planned.stdout


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_where_it_stood(tmp_path: Path) -> None:
    settings = {**SETTINGS, "run.rounds": 6}
    study = {"settings": settings, "arms": {"a": {}, "b": {"adapter.rank": 1}}}
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    (tmp_path / "s.toml").write_text(f"[settings]\n{text}\n[arms.a]\n[arms.b]\nadapter.rank = 1\n")
    command = [sys.executable, "-m", "fed_lorac", "study", "s.toml", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL)
    trials = parse_study("s", study, tmp_path).trials()
    ledger = StudyFolder(tmp_path / "out").of(trials[0]) / "rounds.jsonl"
    while not (ledger.is_file() and len(ledger.read_text().splitlines()) >= 2):
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = ledger.read_text().splitlines()[:1]
    went_on = fl.study(study, tmp_path / "out", progress=False)
    assert ledger.read_text().splitlines()[:1] == killed
    whole = fl.study(study, tmp_path / "whole", progress=False)
    assert went_on.runs.drop(columns="seconds").equals(whole.runs.drop(columns="seconds"))


@pytest.mark.slow
def test_runs_on_ray_processes_find_what_one_process_finds_and_a_dead_process_is_one_failed_run(
    done: fl.StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests' / 'helpers'}")  # of Ray's processes
    whole = fl.study(STUDY, tmp_path / "ray", workers=2, progress=False)
    again = fl.study(STUDY, done.path, progress=False)
    assert whole.runs.drop(columns="seconds").equals(again.runs.drop(columns="seconds"))
    deadly = {**STUDY, "seeds": [0], "arms": {"dies": {"model.name": "deadly:Dies"}, "lives": {}}}
    deadly["settings"] = {key: value for key, value in SETTINGS.items() if not key.startswith("model.resnet8")}
    found = fl.study(deadly, tmp_path / "deadly", workers=2, progress=False)
    assert found.runs["status"].tolist() == ["failed", "finished"]
    assert "process died" in found.runs["error"][0]


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"A study has study\.parquet"):
        fl.load_study(tmp_path)


@pytest.mark.parametrize("times", [1, 99])
def test_a_finished_run_whose_files_cannot_be_read_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    study = {**STUDY, "seeds": [0], "arms": {"full": FULL}}
    one = fl.study(study, tmp_path / "out", progress=False)
    before, read, failed = marks(one), Path.read_bytes, 0

    def refused(self: Path) -> bytes:
        nonlocal failed
        if self.name == "summary.json" and failed < times:
            failed += 1
            raise OSError(5, "Input/output error")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    if times == 1:
        again = fl.study(study, tmp_path / "out", progress=False)
        assert list(again.runs["status"]) == ["finished"]
    else:
        with pytest.raises(UnreadableError, match=r"summary\.json: Input/output error\. If the disk"):
            fl.study(study, tmp_path / "out", progress=False)
    assert failed == min(times, 4) and marks(one) == before
