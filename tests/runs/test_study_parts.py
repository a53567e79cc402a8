"""Laws of parts of a study, which several machines run, and of the time that is left."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_runs import TINY, tiny

import fed_lorac as fl
from fed_lorac.errors import ConfigError
from fed_lorac.studies.part import work_of
from fed_lorac.studies.progress import WorkPace

SETTINGS = {**{key: value for key, value in TINY.items() if key != "width"}, "model.resnet8.width": 4}
SETTINGS |= {"run.rounds": 1, "fleet.cameras": 2, "fleet.per_round": 2}
STUDY: dict[str, Any] = {
    "seeds": [0, 1],
    "settings": SETTINGS,
    "arms": {"full": {"adapter.method": "full", "strategy.name": "fedavg"}, "lora-c": {}},
}


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


def test_tuning_goes_by_arm_whatever_the_seeds(tmp_path: Path) -> None:
    study = {**STUDY, "tune": {"grid": {"local.lr": [0.01, 0.05]}, "seed": 7}}
    found = fl.study(study, tmp_path / "out", arms=["lora-c"], seeds=[1], progress=False)
    assert found.tuning is not None
    done = found.tuning[found.tuning.status == "finished"]
    assert done[["arm", "seed"]].values.tolist() == [["lora-c", 7]] * 2 and len(found.tuning) == 4


@pytest.mark.parametrize(
    ("part", "law"),
    [
        ({"arms": ["ful"]}, "its arms: full, lora-c; got 'ful'. Did you mean 'full'"),
        ({"seeds": [2]}, "seeds: 0, 1; got 2"),
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
