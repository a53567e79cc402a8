"""Laws of parts of a study, which several machines run, and of the time that is left."""

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from small_runs import tiny
from small_studies import SETTINGS

import fed_lorac as fl
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.models import build
from fed_lorac.records.summaries import read_summary
from fed_lorac.seeds import torch_stream
from fed_lorac.studies.definition import Trial
from fed_lorac.studies.part import work_of
from fed_lorac.studies.planned import Planned, seconds_to_come
from fed_lorac.studies.progress import WorkPace
from fed_lorac.studies.rows import Finding

STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "settings": SETTINGS,
    "arms": {"full": {"adapter.method": "full", "strategy.name": "fedavg"}, "lora-c": {}},
}


def test_runs_from_a_base_that_has_changed_in_its_file_are_held_against_no_run_of_another(tmp_path: Path) -> None:
    study = {**STUDY, "seeds": [0], "settings": {**SETTINGS, "model.weights": str(tmp_path / "base.safetensors")}}

    def write_base(seed: int) -> None:
        model = build("resnet8", width=4, generator=torch_stream(seed, "base"))
        save_file(model.state_dict(), tmp_path / "base.safetensors")

    write_base(0)
    first = fl.study(study, tmp_path / "out", arms=["full"], progress=False)
    assert "was not the same" not in first.table()
    write_base(1)
    mixed = fl.study(study, tmp_path / "out", progress=False)
    assert mixed.runs.base.nunique() == 2
    assert mixed.runs.set_index("arm").full_accuracy.notna().to_dict() == {"full": True, "lora-c": False}
    assert "base.safetensors was not the same in full-seed0-" in mixed.table()
    shutil.rmtree(mixed.run(mixed.runs.run[0]).path)
    whole = fl.study(study, tmp_path / "out", progress=False)
    assert whole.runs.full_accuracy.notna().all() and "was not the same" not in whole.table()


def test_parts_of_a_study_are_put_together_by_copying_their_runs(tmp_path: Path) -> None:
    a = fl.study(STUDY, tmp_path / "a", arms=["full"], progress=False)
    assert a.runs.set_index("arm").status.to_dict() == {"full": "finished", "lora-c": "waiting"}
    b = fl.study(STUDY, tmp_path / "b", arms=["lora-c"], seeds=[1], progress=False)
    assert b.runs[b.runs.status == "finished"][["arm", "seed"]].values.tolist() == [["lora-c", 1]]
    shutil.copytree(b.path / "runs", a.path / "runs", dirs_exist_ok=True)
    before = {file: file.stat().st_mtime_ns for file in (a.path / "runs").rglob("*") if file.is_file()}
    whole = fl.study(STUDY, a.path, progress=False)
    assert whole.runs.status.eq("finished").all() and len(whole.runs) == 4
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert whole.runs.full_accuracy.notna().all()


def test_a_run_half_of_one_machine_and_half_of_another_is_not_taken_for_finished(tmp_path: Path) -> None:
    study = {**STUDY, "seeds": [0], "arms": {"lora-c": {}}, "settings": {**SETTINGS, "run.rounds": 2}}
    a, b = tmp_path / "a", fl.study(study, tmp_path / "b", progress=False).path
    (whole,) = (b / "runs").iterdir()
    half = a / "runs" / whole.name
    half.mkdir(parents=True)  # killed after its first round
    shutil.copy(whole / "config.toml", half)
    for name in ("rounds.jsonl", "cameras.jsonl"):
        lines = (whole / name).read_text().splitlines(keepends=True)
        (half / name).write_text("".join(line for line in lines if json.loads(line)["round"] == 1))
    for file in whole.rglob("*"):  # as `cp -rn` would
        there = half / file.relative_to(whole)
        if file.is_file() and not there.exists():
            there.parent.mkdir(exist_ok=True)
            shutil.copy(file, there)
    with pytest.raises(RunError, match="a summary of 2 rounds and a ledger of 1"):
        read_summary(half)
    (row,) = fl.study(study, a, progress=False).runs.to_dict("records")
    assert row["status"] == "failed" and "rounds.jsonl has lost rows" in row["error"]
    shutil.rmtree(half)  # what the error says: again
    assert fl.study(study, a, progress=False).runs.status.tolist() == ["finished"]
    assert filecmp.cmp(half / "model.safetensors", whole / "model.safetensors", shallow=False)


def test_tuning_goes_by_arm_whatever_the_seeds(tmp_path: Path) -> None:
    study = {
        **STUDY,
        "tune": {"grid": {"local.lr": [0.01, 0.05]}, "seed": 7, "settings": {"fleet.validation_share": 0.2}},
    }
    found = fl.study(study, tmp_path / "out", arms=["lora-c"], seeds=[1], progress=False)
    assert found.tuning is not None
    done = found.tuning[found.tuning.status == "finished"]
    assert done[["arm", "seed"]].values.tolist() == [["lora-c", 7]] * 2 and len(found.tuning) == 4


@pytest.mark.parametrize(
    ("part", "law"),
    [
        ({"arms": ["ful"]}, "arms of this study are 'full', 'lora-c'; got 'ful'. Did you mean 'full'"),
        ({"seeds": [2]}, "seeds of this study are 0, 1; got 2"),
    ],
)
def test_a_part_that_the_study_does_not_have_is_refused(tmp_path: Path, part: dict[str, Any], law: str) -> None:
    with pytest.raises(ConfigError, match=law):
        fl.study(STUDY, tmp_path / "out", progress=False, **part)
    assert not (tmp_path / "out").exists()


def test_work_is_rounds_times_images() -> None:
    config = tiny(run__rounds=4)
    assert work_of(config) == 4 * 3 * 50
    assert work_of(config, 1) * 4 == work_of(config)
    assert work_of(tiny(run__rounds=4, validation_share=0.5)) == 0.5 * work_of(config)
    assert work_of(tiny(run__rounds=4, local__epochs=0, local__steps=10)) == 4 * 3 * 10 * 25


def test_the_time_of_a_plan_is_what_finished_runs_took_for_their_images() -> None:
    def run(rounds: int, seconds: float | None, left: int | None = None) -> Planned:
        trial = Trial("a", 0, {}, tiny(run__rounds=rounds))
        return Planned(Finding(trial, Path(), "waiting" if seconds is None else "finished", seconds=seconds), left)

    assert seconds_to_come([run(2, None, 2)]) is None
    assert seconds_to_come([run(2, 10.0), run(4, 20.0), run(8, None, 8), run(9, None, 6), run(9, None)]) == 70
    assert seconds_to_come([run(2, 10.0)]) == 0


def test_the_time_left_follows_the_work_and_not_the_number_of_runs() -> None:
    now = [100.0]
    pace = WorkPace(lambda: now[0])
    pace.to_do = 80.0
    assert pace.left() is None
    pace.begin()
    now[0] += 5
    pace.end(10)  # a tuning run
    assert pace.left() == 35
    now[0] += 1
    pace.begin()
    assert pace.left() == 34
    pace.end(30, failed=True)
    assert pace.left() == 19
