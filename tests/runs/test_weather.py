"""Laws of weather over time: where it may go, that it is a function of the round, and what a front does to accuracy."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import rows, tiny

from fed_lorac.config import names
from fed_lorac.data.store import cache_folder
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.camera_data import CameraData, Stream, camera_data, in_stream_order
from fed_lorac.fleet.fleet import SCHEDULES, Climate, Weather, weather
from fed_lorac.reporting.watch import Watch
from fed_lorac.seeds import stream
from fed_lorac.simulation.engines import run
from fed_lorac.training.batches import shuffled_batches

KINDS = ("fog", "snow", "frost")
CLIMATES = st.builds(
    Climate,
    schedule=st.sampled_from(sorted(SCHEDULES)),
    period=st.integers(2, 12),
    lag=st.floats(0, 3),
    corruptions=st.just(KINDS),
    worst=st.just(5),
    seed=st.integers(0, 2**63 - 1),
)
OWN = st.builds(Weather, st.sampled_from(KINDS), st.integers(1, 5))
CAMERAS = st.integers(0, 200)


def over(climate: Climate, camera: int, own: Weather, rounds: int) -> list[int]:
    return [weather(climate, camera, own, round).severity for round in range(rounds)]


def test_every_schedule_has_its_name():
    assert tuple(SCHEDULES) == names.WEATHER_SCHEDULES


@given(climate=CLIMATES, camera=CAMERAS, own=OWN, round=st.integers(0, 300))
def test_weather_is_one_of_the_fleets_and_the_same_each_time_it_is_asked_for(
    climate: Climate, camera: int, own: Weather, round: int
):
    found = weather(climate, camera, own, round)
    assert found.corruption in KINDS and 0 <= found.severity <= 5
    assert weather(climate, camera, own, round) == found
    if climate.schedule != "walk":
        assert found.corruption == own.corruption and found.severity <= own.severity
    if climate.schedule == "constant":
        assert found == own


@given(period=st.integers(2, 12), lag=st.floats(0, 3), camera=CAMERAS, own=OWN)
def test_a_front_rises_to_a_cameras_own_severity_falls_and_is_gone(period: int, lag: float, camera: int, own: Weather):
    climate, arrives = Climate("front", period, lag), int(lag * camera)
    found = over(climate, camera, own, arrives + period + 5)
    assert not any(found[: arrives + 1]) and not any(found[arrives + period + 1 :])
    here = found[arrives : arrives + period + 2]
    assert max(here) == own.severity and here == here[::-1]
    assert sorted(here[: len(here) // 2]) == here[: len(here) // 2]


@given(period=st.integers(2, 12), camera=CAMERAS, own=OWN)
def test_a_day_repeats_and_has_clear_air_and_the_cameras_own_severity(period: int, camera: int, own: Weather):
    days = over(Climate("daily", period), camera, own, 3 * period)
    assert days[:period] == days[period : 2 * period] == days[2 * period :]
    assert days[0] == 0 and max(days) == own.severity
    assert days == over(Climate("daily", period), camera + 1, own, 3 * period)


@settings(max_examples=50)
@given(seed=st.integers(0, 99), camera=CAMERAS, own=OWN, period=st.integers(2, 12))
def test_a_walk_starts_at_home_and_goes_step_by_step(seed: int, camera: int, own: Weather, period: int):
    climate = Climate("walk", period, corruptions=KINDS, worst=5, seed=seed)
    path = [weather(climate, camera, own, round) for round in range(40)]
    assert path[0] == own
    for before, after in pairwise(path):
        assert abs(before.severity - after.severity) <= 1
    assert any(a != b for a, b in pairwise(path))


def test_walks_differ_by_camera_and_by_seed_and_change_corruption_as_often_as_asked():
    def paths(seed: int) -> list[list[Weather]]:
        climate = Climate("walk", 5, corruptions=KINDS, seed=seed)
        return [[weather(climate, camera, Weather("fog", 3), t) for t in range(200)] for camera in range(20)]

    found = paths(0)
    assert len({tuple(path) for path in found + paths(1)}) == 40
    changes = np.mean([a.corruption != b.corruption for path in found for a, b in pairwise(path)])
    assert changes == pytest.approx(1 / 5, abs=0.02)
    assert {w.severity for path in found for w in path} == set(range(6))


@pytest.mark.parametrize("schedule", names.WEATHER_SCHEDULES)
def test_one_camera_more_leaves_the_others_weather_as_it_was(schedule: str):
    few, many = (build_experiment(tiny(fleet__schedule=schedule, fleet__cameras=n)).fleet for n in (4, 5))
    assert [few.weather(k, t) for k in range(4) for t in range(9)] == [
        many.weather(k, t) for k in range(4) for t in range(9)
    ]


@pytest.mark.parametrize("schedule", names.WEATHER_SCHEDULES)
def test_a_fleet_knows_every_corruption_that_its_cameras_may_come_to(schedule: str):
    fleet = build_experiment(tiny(fleet__schedule=schedule, fleet__cameras=2, fleet__per_round=2)).fleet
    met = {fleet.weather(camera, round).corruption for camera in range(2) for round in range(60)}
    assert set(fleet.corruptions) == met
    assert len(met) == (3 if schedule == "walk" else 2)


def test_constant_weather_is_the_cameras_own():
    fleet = build_experiment(tiny()).fleet
    assert not fleet.changing
    for camera in fleet.cameras:
        assert fleet.weather(camera.id, 7) == Weather(camera.corruption, camera.severity)


# What is seen


def test_the_same_weather_is_the_same_pixels_made_once():
    experiment = build_experiment(tiny(fleet__eval_images=30))
    camera = experiment.fleet.cameras[0]
    own = camera_data(experiment.data, camera, 0)
    kept = len(list(cache_folder().rglob("*")))
    again = camera_data(experiment.data, camera, 0, Weather(camera.corruption, camera.severity))
    assert torch.equal(own.train, again.train) and torch.equal(own.test, again.test)
    assert len(list(cache_folder().rglob("*"))) == kept
    worse = camera_data(experiment.data, camera, 0, Weather(camera.corruption, 5))
    assert not torch.equal(own.test, worse.test)
    assert len(list(cache_folder().rglob("*"))) > kept


def test_severity_zero_is_clear_air():
    experiment = build_experiment(tiny())
    camera = experiment.fleet.cameras[0]
    fair, none = experiment.clear_images(camera.id), camera_data(experiment.data, camera, 0, Weather("fog", 0))
    assert fair is not None and torch.equal(fair.train, none.train) and torch.equal(fair.test, none.test)


def test_weather_that_changes_needs_clear_images(real_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for file in (real_data / "cifar10c-sample").iterdir():
        if file.name in ("fog.npy", "labels.npy"):
            (tmp_path / file.name).symlink_to(file)
    monkeypatch.setenv("FED_LORAC_DATA", str(tmp_path))
    one = {"fleet__cameras": 1, "fleet__per_round": 1, "fleet__images": 0, "fleet__eval_images": 0}
    with pytest.raises(DataError, match="clean"):
        build_experiment(tiny(**one, data__name="cifar10c", fleet__corruptions="fog", fleet__schedule="front"))


def a_view(classes: int, each: int) -> CameraData:
    labels = torch.arange(classes).repeat_interleave(each)
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3)
    return CameraData(images, labels, images, labels)


@given(
    classes=st.integers(1, 6),
    each=st.integers(1, 9),
    seed=st.integers(0, 99),
    order_of=st.sampled_from(["iid", "correlated", "time"]),
)
def test_a_stream_holds_every_image_once_with_its_label(classes: int, each: int, seed: int, order_of: Stream):
    view = a_view(classes, each)
    found = in_stream_order(view, stream(seed, "stream"), order_of)
    order = found.train[:, 0, 0, 0].long()
    assert sorted(order.tolist()) == list(range(classes * each))
    assert torch.equal(found.train_labels, view.train_labels[order])
    changes = int((found.train_labels[1:] != found.train_labels[:-1]).sum())
    if order_of != "iid":
        assert changes == classes - 1
    if order_of == "time":
        assert order.tolist() == list(range(classes * each))


def test_a_correlated_turn_trains_class_by_class():
    from fed_lorac.training.batches import Feed

    view = in_stream_order(a_view(5, 10), stream(0, "stream"), "correlated")
    feeds = {
        shuffled: Feed(
            [view.train],
            [view.train_labels],
            [stream(1, "camera")],
            batch_size=10,
            augment="none",
            device=torch.device("cpu"),
            shuffled=shuffled,
        )
        for shuffled in (True, False)
    }
    in_order = [view.train_labels[feeds[False].drawn(0)].unique() for _ in range(10)]  # two epochs
    assert all(len(labels) == 1 for labels in in_order) and len(torch.cat(in_order).unique()) == 5
    expected = shuffled_batches(50, 10, stream(1, "camera"))
    assert all(torch.equal(feeds[True].drawn(0), batch) for batch in expected)


def test_a_window_takes_statistics_from_the_latest_images_alone(tmp_path: Path):
    """All images in the window give what no window gives, but for rounding; a few of one class are another thing."""
    common: dict[str, Any] = {"model__weights": "shipped", "width": None, "run__rounds": 1}
    found = {}
    for name, changes in {
        "all": {},
        "wide": {"window": 1000},
        "narrow": {"window": 5, "fleet__stream": "correlated"},
    }.items():
        run(tiny(**common, **changes), tmp_path / name, Watch())
        found[name] = rows(tmp_path / name / "rounds.jsonl")[0]["accuracy_zero_byte"]
    assert found["wide"] == pytest.approx(found["all"], abs=0.011)
    assert found["narrow"] < found["all"] - 0.05


# A front passes


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of fog that stands over each of four cameras for two rounds, one camera after another."""
    folder = tmp_path_factory.mktemp("front") / "run"
    settings: dict[str, Any] = {
        "model__weights": "shipped",
        "width": None,
        "run__rounds": 8,
        "fleet__images": 25,
        "fleet__corruptions": "fog",
        "fleet__severities": "5",
        "fleet__schedule": "front",
        "period": 3,
        "fleet__per_round": 4,
        "local__lr": 0.01,
    }
    run(tiny(**settings), folder, Watch())
    return folder


def test_accuracy_falls_as_a_fog_front_passes_and_recovers(front: Path):
    found = rows(front / "rounds.jsonl")
    for arm in ("accuracy", "accuracy_source", "accuracy_zero_byte"):
        scores = [row[arm] for row in found]
        assert min(scores[2:5]) < min(scores[0], scores[-1]) - 0.02, (arm, scores)
    worst = min(found, key=lambda row: row["accuracy_source"])
    assert worst["accuracy"] > worst["accuracy_source"]  # who follows the weather loses less


def test_the_ledger_has_the_rounds_weather(front: Path):
    severities: dict[int, list[int]] = {}
    for row in rows(front / "cameras.jsonl"):
        severities.setdefault(row["camera"], []).append(row["severity"])
        assert row["corruption"] == "fog"
    assert severities[0] == [4, 5, 4, 0, 0, 0, 0, 0]
    for camera in range(1, 4):  # one round later
        assert severities[camera] == [0, *severities[camera - 1][:-1]]


def test_the_summary_speaks_of_the_last_rounds_weather(front: Path):
    import json

    found = json.loads((front / "summary.json").read_text())
    assert set(found["per_corruption"]) == {"clear"}
    ledger = rows(front / "rounds.jsonl")
    assert found["source_accuracy"] == ledger[-1]["accuracy_source"]
    from rich.console import Console

    from fed_lorac.reporting.tables import accuracy_table

    console = Console(record=True, width=120)
    console.print(accuracy_table(found))
    assert "mean over rounds" in console.export_text()
    assert found["over_rounds"]["adapted"] == pytest.approx(np.mean([row["accuracy"] for row in ledger]))


def test_a_front_over_less_than_two_rounds_is_refused():
    with pytest.raises(ConfigError, match="period"):
        tiny(period=1)
