"""Laws of what the base scores: it is measured once a fleet, in later rounds too, and reading it changes no byte."""

import logging
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from small_runs import ROOT, tiny

from fed_lorac.client import evaluate_base as evaluate_room
from fed_lorac.client.base_scores import CODE, base_scores, key_of
from fed_lorac.client.evaluate_base import evaluate_base
from fed_lorac.data.corruptions import CORRUPTIONS
from fed_lorac.errors import RunError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.fleet.fleet import Weather
from fed_lorac.records.measured import Measured
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.training.accuracy import accuracy

FOUND = Measured({0: 0.1, 1: 0.25, 2: 1 / 3, 3: 0.5}, {0: 0.7, 2: 0.9}), Measured({0: 0.3, 1: 0.4, 2: 0.5, 3: 0.6}, {})


class Phases(Watch):
    """Notes which phases a run goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[str] = []

    def phase(self, name: str, messages: int) -> None:
        self.phases.append(name)


def experiment(**changes: object) -> Experiment:
    return build_experiment(tiny(**changes))


def written(folder: Path) -> dict[str, bytes]:
    """What a run leaves, less what a clock says and where it is."""
    apart = rb'"seconds": ?[0-9.e-]+|"[a-z_.]*(out|keep_base_scores)": ?("[^"]*"|true|false)'
    kinds = (".json", ".jsonl", ".safetensors")
    return {path.name: re.sub(apart, b"", path.read_bytes()) for path in folder.iterdir() if path.suffix in kinds}


def test_a_run_that_reads_what_the_base_scores_has_the_bytes_of_one_that_measures_it(tmp_path: Path) -> None:
    outs = {}
    for name, keep in (("measures", True), ("reads", True), ("keeps nothing", False)):
        watch = Phases()
        run(tiny(keep_base_scores=keep, run__seed=11), tmp_path / name, watch)
        outs[name] = written(tmp_path / name)
        assert ("base" in watch.phases) is (name != "reads")
    assert {"summary.json", "rounds.jsonl", "cameras.jsonl", "adapter.safetensors"} <= outs["reads"].keys()
    assert outs["reads"] == outs["measures"] == outs["keeps nothing"]


def test_where_weather_changes_later_rounds_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outs, counted = {}, list[int]()

    def counting(experiment: Experiment, round: int, camera: int, weather: Weather) -> tuple[float, float]:
        counted.append(round)
        return measure(experiment, round, camera, weather)

    measure = evaluate_room._measure
    monkeypatch.setattr(evaluate_room, "_measure", counting)
    for name, keep in (("measures", True), ("reads", True), ("keeps nothing", False)):
        changes = {"fleet__schedule": "daily", "fleet__stream": "correlated", "run__seed": 18}
        run(tiny(keep_base_scores=keep, **changes), tmp_path / name, Watch())
        outs[name] = written(tmp_path / name)
        assert set(counted) == (set() if name == "reads" else {0, 1, 2})
        counted.clear()
    assert outs["reads"] == outs["measures"] == outs["keeps nothing"]


def test_what_was_kept_is_read_as_it_was_measured() -> None:
    fleet = experiment(run__seed=12)
    assert base_scores(fleet, lambda: FOUND) == FOUND
    assert base_scores(fleet, lambda: pytest.fail("it is kept")) == FOUND


def test_what_lacks_a_camera_is_not_kept() -> None:
    fleet, some = experiment(run__seed=13), (Measured({0: 0.5}), Measured())
    assert base_scores(fleet, lambda: some) == some
    assert base_scores(fleet, lambda: FOUND) == FOUND


def test_what_measuring_raises_passes_through() -> None:
    def fail() -> Any:
        raise RunError("no camera")

    with pytest.raises(RunError, match="no camera"):
        base_scores(experiment(run__seed=14), fail)


def test_a_cache_that_cannot_be_written_is_told_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fleet = experiment()
    (tmp_path / "file").touch()
    monkeypatch.setenv("FED_LORAC_CACHE", str(tmp_path / "file" / "below"))
    with caplog.at_level(logging.WARNING):
        assert base_scores(fleet, lambda: FOUND) == FOUND
    assert "not kept for later runs" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter__rank": 2},
        {"adapter__method": "norm-affine", "strategy__name": "fedavg"},
        {"local__lr": 0.01},
        {"codec__up": "int8"},
        {"run__rounds": 5},
        {"fleet__per_round": 2},
        {"strategy__name": "zero-byte"},
    ],
)
def test_what_is_trained_and_sent_does_not_matter(changes: dict[str, object]) -> None:
    assert key_of(experiment(**changes)) == key_of(experiment()) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"run__seed": 1},
        {"run__threads": 2},
        {"run__precision": "bf16"},
        {"width": 8},
        {"model__name": "resnet14"},
        {"model__normalization": "imagenet"},
        {"fleet__cameras": 5},
        {"fleet__images": 40},
        {"fleet__eval_images": 30},
        {"fleet__corruptions": "snow"},
        {"fleet__severities": "4"},
        {"fleet__schedule": "daily"},
        {"fleet__stream": "correlated"},
        {"window": 10},
        {"data__image_size": 16},
        {"evaluate_cameras": 2},
        {"evaluate_images": 15},
    ],
)
def test_what_decides_an_accuracy_is_in_the_key(changes: dict[str, object]) -> None:
    assert key_of(experiment(**changes)) not in (None, key_of(experiment()))


def test_other_code_or_another_cpu_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = experiment()
    before = key_of(fleet)
    with monkeypatch.context() as other:
        other.setattr("fed_lorac.client.base_scores.source_of", lambda *modules: "other code")
        assert key_of(fleet) != before
    with monkeypatch.context() as other:
        other.setattr("fed_lorac.client.base_scores.cpu_model", lambda: "another")
        assert key_of(fleet) != before
    with monkeypatch.context() as other:
        other.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
        assert key_of(fleet) != before
    assert key_of(fleet) == before


def test_a_replaced_corruption_and_other_machines_keep_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    fleet = experiment(run__workers=2)
    assert key_of(fleet) == key_of(experiment())
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert key_of(fleet) is None and key_of(experiment()) is not None
    monkeypatch.setitem(CORRUPTIONS, "fog", lambda images, severity, rng: images)
    assert key_of(experiment()) is None
    assert key_of(experiment(keep_base_scores=False, fleet__corruptions="none")) is None


def test_all_code_that_measuring_the_base_runs_through_is_in_the_key() -> None:
    fleet, found = experiment(), set[str]()

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        evaluate_base(fleet, 0, 0)
    finally:
        sys.setprofile(before)
    ours = {str(Path(file).relative_to(ROOT)) for file in found if Path(file).is_relative_to(ROOT / "fed_lorac")}
    known = {f"{module.replace('.', '/')}.py" for module in CODE}
    finds_pixels = ("data/corruptions/", "data/store.py", "data/disk.py", "runtime/source.py", "runtime/fil")
    finds_names = ("runtime/flock.py", "runtime/kind.py")
    others = {
        file for file in ours - known if not file.removeprefix("fed_lorac/").startswith(finds_pixels + finds_names)
    }
    assert "fed_lorac/training/accuracy.py" in ours and not others, others


def test_the_base_is_measured_once_in_each_weather(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, counted = experiment(fleet__schedule="daily", run__seed=15), list[float]()

    def counting(*given: Any) -> float:
        counted.append(accuracy(*given))
        return counted[-1]

    monkeypatch.setattr("fed_lorac.client.local_update.accuracy", counting)
    first = [evaluate_base(fleet, round, 0) for round in range(6)]
    weathers = {fleet.fleet.weather(0, round) for round in range(6)}
    assert len(counted) == 2 * len(weathers) < 2 * 6  # clear air is one of them
    again = experiment(fleet__schedule="daily", run__seed=15, run__rounds=3)
    assert again is not fleet
    assert [evaluate_base(again, round, 0) for round in range(6)] == first


def test_cameras_that_share_a_network_score_as_with_one_of_their_own() -> None:
    shared = experiment(run__seed=16)
    alone = [experiment(run__seed=16, run__rounds=rounds) for rounds in (3, 4, 5, 6)]
    found = [evaluate_base(one, 0, camera) for camera, one in enumerate(alone)]
    assert [evaluate_base(shared, 0, camera) for camera in (0, 1, 2, 3)] == found
    assert len({scores for pair in found for scores in pair}) > 2
