"""Laws of a study's table and folder as parts come in: what it can say of some runs, and which of two it reads."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_studies import FULL, SETTINGS, STUDY

import fed_lorac as fl
from fed_lorac.errors import RunError
from fed_lorac.reporting.cells import SOME_SEEDS
from fed_lorac.studies.folder import StudyFolder
from fed_lorac.studies.read import parse_study


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> fl.StudyResult:
    return fl.study(STUDY, tmp_path_factory.mktemp("table") / "out", progress=False)


@pytest.fixture
def copied(done: fl.StudyResult, tmp_path: Path) -> Path:
    shutil.copytree(done.path, tmp_path / "out")
    return tmp_path / "out"


def found_where(study: Path, gain_of_full: dict[int, float]) -> fl.StudyResult:
    """The study, had full fine-tuning gained so much by seed, and the others half a point."""
    for file in (study / "runs").glob("*/summary.json"):
        summary = json.loads(file.read_text())
        gain = gain_of_full[summary["seed"]] if summary["method"] == "full" else 0.005
        file.write_text(json.dumps(summary | {"adapted_accuracy": summary["zero_byte_accuracy"] + gain}))
    return fl.study(STUDY, study, progress=False)


def check_told(study: fl.StudyResult) -> int:
    """Each row's gain is of the seeds whose gain is known, says so where these are not all, and is explained: how many
    say it."""
    lines, some = study.table().splitlines(), 0
    for line, (_, its) in zip(lines[2:], study.runs.groupby(["arm", "adapter.rank"], dropna=False), strict=False):
        ended = its[its.status == "finished"]
        known, of = int(ended.gain_recovered.notna().sum()), len(ended)
        assert (f"({known} of {of})" in line) == (0 < known < of)
        some += 0 < known < of
    assert any(SOME_SEEDS in line for line in lines) == (some > 0)
    assert (SOME_SEEDS.replace('"', "&quot;") in study._repr_html_()) == (some > 0)
    return some


@pytest.mark.parametrize(("gains", "some"), [({0: 0.01, 1: 0.01}, 0), ({0: 0.01, 1: 0.0}, 3), ({0: 0.0, 1: 0.0}, 0)])
def test_a_gain_is_told_where_full_fine_tuning_gained_nothing_in_a_seed(
    copied: Path, gains: dict[int, float], some: int
) -> None:
    study = found_where(copied, gains)
    assert check_told(study) == some
    assert study.runs.gain_recovered.notna().sum() == 3 * sum(gain > 0 for gain in gains.values())


def test_a_part_of_a_study_has_its_table(copied: Path) -> None:
    study = found_where(copied, {0: 0.01, 1: 0.01})
    [last] = study.runs.query("arm == 'full' and seed == 1").run
    shutil.rmtree(study.run(last).path)  # as of `--only full --seed 0`, then `--only lora-c`
    part = fl.study(STUDY, copied, arms=["lora-c"], progress=False)
    assert check_told(part) == 2 and part.runs.status.value_counts().to_dict() == {"finished": 5, "waiting": 1}


def test_a_table_without_a_paired_test_says_why(copied: Path) -> None:
    for name in ("full-*", "lora-c-rank-2-*"):
        for folder in (copied / "runs").glob(name):
            shutil.rmtree(folder)
    seeds = {"seeds": [0, 1], "settings": SETTINGS}
    arms = {"full": FULL, "one": {"adapter.rank": 1}, "two": {"adapter.rank": 2, "local.lr": 0.3}}
    study = fl.study({**seeds, "arms": arms}, copied, arms=["one"], progress=False)
    assert 'No paired test: "two" has no finished run.' in study.table(against="two")
    assert 'No paired test: "full" has no finished run.' in study.table(against="full")
    for file in (copied / "runs").glob("*/cameras.jsonl"):
        file.unlink()
    untold = study.table(against="one")
    assert 'No paired test: no row has the cameras of "one" in the same weather, each with its' in untold
    alone = fl.study({**seeds, "arms": {"one": {"adapter.rank": 1}}}, copied, progress=False)
    assert "No paired test" not in alone.table()


def test_of_an_arm_under_two_names_the_finished_run_is_read(done: fl.StudyResult, copied: Path) -> None:
    """An arm was renamed between two parts of a study, and their runs were put together."""
    trials = parse_study("s", STUDY, copied).trials()
    for number, trial in enumerate(trials):
        folder = StudyFolder(copied).of(trial)
        other = folder.with_name(f"{'an' if number % 2 else 'z'}-other-seed{trial.seed}-{trial.digest}")
        shutil.copytree(folder, other)
        (other if number % 3 else folder).joinpath("summary.json").unlink()  # one of the two is not finished
    for trial in trials:
        chosen = StudyFolder(copied).of(trial)
        assert (chosen / "summary.json").is_file() and fl.load_study(copied).run(trial.digest).path == chosen
    again = fl.study(STUDY, copied, progress=False)
    pd.testing.assert_frame_equal(again.runs, done.runs)
    assert again.table() == fl.load_study(done.path).table()
    for word in ("", "*", "?" * 12, "0" * 12):
        with pytest.raises(RunError, match="named by its column `run`"):
            again.run(word)


def test_a_study_that_is_still_tuned_says_so(tmp_path: Path) -> None:
    tune = {"grid": {"local.lr": [0.01, 0.05]}, "settings": {"fleet.validation_share": 0.2}}
    study = {**STUDY, "arms": {"full": FULL}, "tune": tune}
    found = fl.study(study, tmp_path / "out", progress=False).path
    for file in found.glob("study.*"):  # as it is before the first run of the table
        file.unlink()
    for ask in (fl.load_study, fl.report, lambda folder: fl.compare([folder])):
        with pytest.raises(RunError, match=r"(is|holds) a study whose tuning goes on"):
            ask(found)
