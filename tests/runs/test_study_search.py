"""Laws of values that tuning draws: the same for each arm, from the seed alone, and runs that are stopped are runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from interrupted import check_equal
from small_studies import FULL, NAMED

import fed_lorac as fl
from fed_lorac.errors import ConfigError
from fed_lorac.studies.conduct import conduct
from fed_lorac.studies.definition import Trial
from fed_lorac.studies.planned import Planned, planned
from fed_lorac.studies.read import parse_study
from fed_lorac.studies.search import HALVING, Range, Tuning
from fed_lorac.studies.watch import StudyWatch

SETTINGS = NAMED | {"fleet.cameras": 2, "fleet.per_round": 2}
RATES = {"local.lr": {"low": 0.001, "high": 1.0, "log": True}}


def study(**tune: Any) -> dict[str, Any]:
    tune["settings"] = {"fleet.validation_share": 0.2, **tune.get("settings", {})}
    return {"settings": {**SETTINGS, "run.rounds": 1}, "arms": {"full": FULL, "lora-c": {}}, "tune": tune}


def test_values_follow_from_the_seed_and_stay_in_their_range() -> None:
    pytest.importorskip("optuna")
    ranges = {"local.lr": Range(0.01, 1.0, log=True), "adapter.rank": Range(2, 5)}
    asked = Tuning({"local.momentum": [0.0, 0.9]}, search="random", budget=60, ranges=ranges)
    found = asked.points()
    assert found == asked.points() and len(found) == 60
    assert {point["adapter.rank"] for point in found} == {2, 3, 4, 5}
    assert {point["local.momentum"] for point in found} == {0.0, 0.9}
    rates = sorted(float(str(point["local.lr"])) for point in found)
    assert rates[0] >= 0.01 and rates[-1] <= 1 and 0.04 < rates[30] < 0.25  # half of them below a tenth, in logarithms
    other = Tuning({}, seed=1, search="random", budget=60, ranges=ranges).points()
    assert [point["local.lr"] for point in other] != [point["local.lr"] for point in found]


def test_a_value_that_is_drawn_again_is_tried_once(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    choices = {"local.momentum": [0.0, 0.9], "local.lr": [0.1, 0.2]}
    found = Tuning(choices, search="random", budget=30).points()
    assert sorted(map(str, found)) == sorted(map(str, Tuning(choices).points()))  # all four, of thirty draws
    trials = parse_study("s", study(search="random", budget=30, grid=choices), tmp_path).tuning_trials()
    assert len({trial.digest for trial in trials}) == len(trials) == 2 * 4


@pytest.mark.parametrize(
    ("budget", "rounds", "stages"), [(9, 20, (2, 6, 20)), (9, 4, (1, 4)), (2, 9, (9,)), (27, 30, (1, 3, 10, 30))]
)
def test_a_third_goes_on_three_times_as_far(budget: int, rounds: int, stages: tuple[int, ...]) -> None:
    assert Tuning({}, search=HALVING, budget=budget).stages(rounds) == stages
    assert Tuning({}, search="random", budget=budget).stages(rounds) == (rounds,)


@pytest.mark.parametrize(
    ("tune", "law"),
    [
        ({"search": "rnd", "budget": 2, "ranges": RATES}, "tune.search is one of"),
        ({"ranges": RATES}, 'Set tune.search = "random"'),
        ({"search": "random", "ranges": RATES}, "tune.budget is the number"),
        ({"search": "random", "budget": 2, "ranges": {"local.lr": {"low": 1, "high": 0.1}}}, "low below high"),
        ({"search": "random", "budget": 2, "ranges": {"local.lr": {"low": 0, "high": 1, "log": True}}}, "above 0"),
        (
            {"search": "random", "budget": 2, "ranges": {"local.lr": {"low": 0.1, "most": 1}}},
            "A range has low and high",
        ),
        (
            {"search": "random", "budget": 2, "ranges": {"lr": {"low": 0.1, "high": 1}}},
            "names settings with their section",
        ),
    ],
)
def test_what_makes_no_search_is_refused(tmp_path: Path, tune: dict[str, Any], law: str) -> None:
    with pytest.raises(ConfigError, match=law):
        parse_study("s", study(**tune), tmp_path)


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({"run.rounds": 3, "run.evaluate_every": 2}, "which must be measured"),
        ({"run.rounds": 3, "run.fleet.checkpoint_every": 0}, "from their checkpoints"),
    ],
)
def test_a_halving_that_could_not_compare_its_runs_is_refused(
    tmp_path: Path, settings: dict[str, Any], law: str
) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(ConfigError, match=law):
        fl.study(study(search=HALVING, budget=3, ranges=RATES, settings=settings), tmp_path / "out", progress=False)


def refused(asked: dict[str, Any], out: Path, **how: Any) -> str:
    """What a plan says of a study that cannot be run; the run says the same."""
    said = []
    for go in (planned, conduct):
        with pytest.raises(ConfigError) as error:
            go(parse_study("s", asked, out), out, **how)
        said.append(str(error.value))
    assert said[0] == said[1] and not out.exists()
    return said[0]


def test_a_plan_refuses_what_the_run_would(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    uneven = study(search=HALVING, budget=3, ranges=RATES, settings={"run.rounds": 3, "run.evaluate_every": 2})
    assert "which must be measured" in refused(uneven, tmp_path / "out")
    wide = {"settings": {**SETTINGS, "run.workers": 2}, "arms": {"lora-c": {}}}
    assert "each takes one process" in refused(wide, tmp_path / "out", workers=2)


class Rounds(StudyWatch):
    """The rounds that are left by a plan made as each run begins."""

    def __init__(self, plan: Callable[[], list[Planned]]) -> None:
        self.plan, self.left = plan, list[int]()

    def started(self, trial: Trial) -> None:
        self.left.append(sum(run.rounds_left or 0 for run in self.plan()))


def test_a_plan_of_a_halving_counts_the_rounds_that_are_left_and_ends_with_none(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    asked = study(search=HALVING, budget=3, ranges=RATES, settings={"run.rounds": 3})
    asked["arms"] = {"lora-c": {}}
    whole, out = parse_study("s", asked, tmp_path), tmp_path / "out"
    watch = Rounds(lambda: planned(whole, out))
    conduct(whole, out, watch=watch)
    # Three runs to round 1, one of them on to round 3, and the table's run of one round.
    assert watch.left == [3 + 2 + 1, 2 + 2 + 1, 1 + 2 + 1, 2 + 1, 1]
    runs = planned(whole, out)
    assert [run.rounds_left for run in runs] == [None] * 4
    assert sorted(run.finding.status for run in runs) == ["finished", "finished", "stopped", "stopped"]


@pytest.mark.slow
def test_halving_stops_the_worse_runs_and_those_that_go_on_are_as_if_never_stopped(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    more = {"run.rounds": 3}
    asked = study(search=HALVING, budget=3, ranges=RATES, settings=more, seed=5)
    found = fl.study(asked, tmp_path / "out", progress=False)
    assert found.tuning is not None
    for arm, its in found.tuning.groupby("arm"):
        assert sorted(its.status) == ["finished", "stopped", "stopped"]
        first = {row.run: found.run(row.run).rounds.accuracy[0] for row in its.itertuples()}
        [ahead] = its[its.status == "finished"].itertuples()
        assert first[ahead.run] == max(first.values())
        assert set(its[its.status == "stopped"].rounds) == {1} and ahead.rounds == 3
        [chosen] = found.runs[found.runs.arm == arm]["local.lr"]
        assert chosen == its.set_index("run")["local.lr"][ahead.run]
        whole = fl.run(found.run(ahead.run).config, out=tmp_path / f"whole-{arm}", progress=False)
        check_equal(found.run(ahead.run).path, whole.path)
    assert len(set(found.tuning["local.lr"])) == 3  # the same for both arms
    assert (
        "local.lr (0.001 to 1, log); 3 values, drawn, the better third of them three times as long, in runs of 3 "
        "rounds with seed 5. Chosen on a share of 0.2 of each camera's own training images"
    ) in found.table()
    before = {file: file.stat().st_mtime_ns for file in (found.path / "runs").rglob("*") if file.is_file()}
    fl.study(asked, found.path, progress=False)
    assert before == {file: file.stat().st_mtime_ns for file in (found.path / "runs").rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"arms": {"full": FULL, "lora-c": {"grid": {"local.lr": [0.02]}}}}, "arms.'lora-c'.grid"),
        ({"grid": {"local.lr": [0.02, 0.04]}}, "grid"),
    ],
)
def test_a_setting_that_is_tuned_is_in_no_grid(changes: dict[str, Any], where: str, tmp_path: Path) -> None:
    asked = study(grid={"local.lr": [0.01, 0.1]}) | changes
    with pytest.raises(ConfigError, match=f"tunes local.lr, and {where} has it too"):
        fl.study(asked, tmp_path / "out", progress=False)
