"""Laws of a study's file: which runs follow from it, what each is, and what is refused before any is run."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import ROOT

from fed_lorac.config import load_config
from fed_lorac.errors import ConfigError
from fed_lorac.studies.definition import Study
from fed_lorac.studies.read import load_definition, parse_study, shipped_studies

ARMS = {"full": {"adapter": {"method": "full"}, "strategy.name": "fedavg"}, "lora-c": {"adapter": {"rank": 1}}}


def parsed(**content: Any) -> Study:
    return parse_study("s", content, Path("/nowhere"))


@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True), cameras=st.integers(1, 3))
@settings(max_examples=10)
def test_trials_are_every_arm_at_every_point_of_the_grid_with_every_seed(seeds: list[int], cameras: int) -> None:
    grid = {"fleet": {"per_round": list(range(1, cameras + 1))}}
    trials = parsed(seeds=seeds, arms=ARMS, grid=grid).trials()
    assert [(t.seed, t.arm, t.point["fleet.per_round"]) for t in trials] == [
        (seed, arm, number) for seed in seeds for arm in ARMS for number in range(1, cameras + 1)
    ]
    assert len({trial.digest for trial in trials}) == len(trials) == len({trial.folder for trial in trials})
    for trial in trials:
        assert trial.config.run.seed == trial.seed and trial.config.fleet.per_round == trial.point["fleet.per_round"]


def test_a_trial_is_the_config_that_its_settings_make_on_top_of_one_another() -> None:
    study = parsed(
        config="fog_snow_noise",
        settings={"run.rounds": 3, "adapter.rank": 7},
        arms={"a": {"adapter.rank": 5, "grid": {"local.lr": [0.1, 0.2]}}, "b": {}},
    )
    first, second, third = study.trials()
    assert first.config == load_config("fog_snow_noise", {"run.rounds": 3, "adapter.rank": 5, "local.lr": 0.1})
    assert second.config == load_config("fog_snow_noise", {"run.rounds": 3, "adapter.rank": 5, "local.lr": 0.2})
    assert third.config == load_config("fog_snow_noise", {"run.rounds": 3, "adapter.rank": 7})


def test_a_run_is_known_by_what_changes_its_results_and_by_nothing_else() -> None:
    def digest(**settings: object) -> str:
        [trial] = parsed(
            config="fog_snow_noise", settings={key.replace("__", "."): value for key, value in settings.items()}
        ).trials()
        return trial.digest

    assert digest() == digest(run__workers=2) == digest(data__root="/elsewhere") == digest(run__rounds=10)
    others = {"run__rounds": 9, "local__lr": 0.01, "run__threads": 2, "adapter__rank": 1}
    different = [digest(), *(digest(**{key: value}) for key, value in others.items())]
    assert len(set(different)) == len(different)


REFUSED = [
    ({"seeds": []}, "A study has seeds, each once"),
    ({"seeds": [1, 1]}, "A study has seeds, each once"),
    ({"seeds": [0.5]}, "seeds are whole numbers"),
    ({"seeds": [True]}, "seeds are whole numbers"),
    ({"seed": [1]}, "A study's keys are .*did you mean 'seeds'|A study's keys are"),
    ({"arms": {"a": 3}}, "An arm is a table of settings"),
    ({"arms": {}}, r"at least one arm; s has \[arms\] with none in it. Add one"),
    (
        {"arms": {}, "tune": {"grid": {"local.lr": [0.1]}, "settings": {"fleet.validation_share": 0.2}}},
        "at least one arm",
    ),
    ({"grid": {"adapter": {"rank": 2}}}, "a list of values to try"),
    ({"grid": {"adapter.rank": []}}, "a list of values to try"),
    ({"grid": {"rank": [1, 2]}}, "with their section"),
    ({"settings": {"run.seed": 3}}, "run.seed itself.*Use seeds"),
    ({"arms": {"a": {"run.out": "x"}}}, "run.out itself.*Use --out"),
    ({"arms": {"a": {}, "b": {}}}, "'a, seed 0' and 'b, seed 0' have the same settings"),
    ({"arms": {"a": {"adapter.rank": 0}}}, "that of 'a': .*rank"),
    ({"arms": {"a": {"adapter.nonsense": 0}}}, "that of 'a': .*nonsense"),
    ({"config": "quickstar"}, "quickstart"),
]


def test_what_makes_no_study_is_refused_before_anything_is_run() -> None:
    for content, said in REFUSED:
        with pytest.raises(ConfigError, match=said):
            parsed(**content).trials()


def test_the_study_that_the_docs_show_is_one() -> None:
    text, tune, search = re.findall(
        r"^```toml\n(.*?)^```", (ROOT / "docs" / "studies.md").read_text("utf-8"), re.M | re.S
    )
    trials = parse_study("ranks", tomllib.loads(text), Path()).trials()
    assert len(trials) == 3 * 2 * (1 + 3) and {trial.config.data.name for trial in trials} == {"cifar10"}
    assert len(parse_study("ranks", tomllib.loads(text + tune), Path()).tuning_trials()) == 3 * 2 * (1 + 3)
    drawn = parse_study("ranks", tomllib.loads(text + search), Path()).tuning
    assert drawn is not None and drawn.search == "successive-halving" and drawn.budget == 9


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_holds_and_tunes_all_arms_alike_or_says_their_rate(name: str) -> None:
    study = load_definition(name)
    tuning = study.tuning_trials()
    assert len(study.seeds) >= 3 or name == "rates"  # what a search of rates says is a decade
    if study.tuning is None:
        assert "local.lr" in study.settings and study.trials()
        return
    assert len({trial.arm for trial in tuning}) == len(study.arms)
    assert all(trial.config.fleet.validation_share > 0 for trial in tuning)
    assert study.trials({trial.place: trial.tuned for trial in tuning})


def test_the_docs_list_every_shipped_study() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "studies.md").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(shipped_studies())


def test_what_is_common_to_the_arms_may_hold_with_an_arms_settings_alone() -> None:
    common = {"fleet.per_round": 3, "strategy.name": "fedavg"}  # of one camera, of an adapter that is not linear
    arm = {"fleet.cameras": 3, "adapter.method": "norm-affine"}
    [trial] = parsed(config="fog_snow_noise", settings=common, arms={"a": arm}).trials()
    assert trial.config == load_config("fog_snow_noise", {**common, **arm})
    with pytest.raises(ConfigError, match="that of 'a': A round cannot draw more cameras"):
        parsed(config="fog_snow_noise", settings={"fleet.per_round": 13}, arms={"a": {}}).trials()


def test_a_study_is_found_as_a_file_and_its_config_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text("run.rounds = 4\n")
    (tmp_path / "mine.toml").write_text('config = "base.toml"\ntitle = "t"\n')
    study = load_definition(tmp_path / "mine.toml")
    [trial] = study.trials()
    assert (study.name, study.title, trial.arm, trial.config.run.rounds) == ("mine", "t", "mine", 4)
    for content in ("seeds = [", "\ufeffseeds = 3"):
        (tmp_path / "mine.toml").write_text(content)
        with pytest.raises(ConfigError, match=r"mine\.toml|seeds is a list"):
            load_definition(tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match="A study is a TOML file"):
        load_definition(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="A study is a TOML file, or one of"):
        load_definition("no-such-study")


TUNE: dict[str, Any] = {"grid": {"local.lr": [0.1, 0.2]}, "settings": {"run.rounds": 2, "fleet.validation_share": 0.2}}
TUNED: dict[str, Any] = {"arms": ARMS, "seeds": [3, 4], "tune": TUNE}


def test_every_arm_is_tuned_over_the_same_values_with_one_seed_and_its_own_settings() -> None:
    tuning = parsed(**TUNED).tuning_trials()
    assert [(t.arm, t.tuned["local.lr"], t.seed, t.config.run.rounds) for t in tuning] == [
        ("full", 0.1, 3, 2),
        ("full", 0.2, 3, 2),
        ("lora-c", 0.1, 3, 2),
        ("lora-c", 0.2, 3, 2),
    ]
    assert parsed(arms=ARMS).tuning_trials() == []


def test_an_arm_may_be_tuned_over_as_many_values_of_its_own() -> None:
    tune = {**TUNE, "arms": {"full": {"local": {"lr": [3.0, 4.0]}}}}
    tried = [(trial.arm, trial.config.local.lr) for trial in parsed(**{**TUNED, "tune": tune}).tuning_trials()]
    assert tried == [("full", 3.0), ("full", 4.0), ("lora-c", 0.1), ("lora-c", 0.2)]
    drawn = {"search": "random", "budget": 2, "grid": {"local.lr": [0.1, 0.2]}, "arms": tune["arms"]}
    for other, said in (
        ({**tune, "arms": {"ful": {"local.lr": [1.0, 2.0]}}}, "has 'ful' there.*Did you mean 'full'"),
        (
            {**tune, "arms": {"full": {"local.lr": [1.0]}}},
            "the same number of values.*with 1 of local.lr, and tune.grid has 2",
        ),
        ({**tune, "arms": {"full": {"local.momentum": [0.5, 0.9]}}}, "and tune.grid has 0"),
        ({**tune, "arms": {"full": 3}}, "table of settings"),
        (drawn, "no tune.search"),
    ):
        with pytest.raises(ConfigError, match=said):
            parsed(**{**TUNED, "tune": other})


def test_what_tuning_chose_goes_into_the_runs_of_that_arm_alone() -> None:
    trials = parsed(**TUNED).trials({"full": {"local.lr": 0.2}, "lora-c": {"local.lr": 0.1}})
    assert [(t.arm, t.seed, t.config.local.lr) for t in trials] == [
        ("full", 3, 0.2),
        ("lora-c", 3, 0.1),
        ("full", 4, 0.2),
        ("lora-c", 4, 0.1),
    ]
    assert {trial.config.run.rounds for trial in trials} == {10}


def test_tuning_never_chooses_on_images_of_the_table() -> None:
    with pytest.raises(ConfigError, match=r"it is 0 in tuning, 'full, local\.lr=0\.1, seed 3'"):
        parsed(**{**TUNED, "tune": {**TUNE, "settings": {"run.rounds": 2}}}).tuning_trials()
    with pytest.raises(ConfigError, match=r"it is 0\.2 in a run of the table, 'full, "):
        parsed(**TUNED, settings={"fleet.validation_share": 0.2}).trials({"full": {}, "lora-c": {}})


def test_tuning_that_says_nothing_to_try_is_refused() -> None:
    for tune, said in (
        ({"seed": 1}, "no tune.grid"),
        ({"grid": {"lr": [1]}}, "with their section"),
        ({"grid": {"local.lr": [1.0]}, "seeds": [1]}, r"\[tune\] has seed, settings, grid"),
        ({"grid": {"local.lr": [1.0]}, "seed": "a"}, "whole number"),
    ):
        with pytest.raises(ConfigError, match=said):
            parsed(tune=tune)
