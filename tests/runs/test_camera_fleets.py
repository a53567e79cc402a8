"""Laws of runs whose cameras keep their own images, and of those that see them as they are."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import rows, tiny

from fed_lorac.client.evaluate_base import evaluate_base
from fed_lorac.errors import ConfigError, DataError
from fed_lorac.experiment.base_model import saw_fleet_images
from fed_lorac.experiment.build import build_experiment
from fed_lorac.export import export_run
from fed_lorac.fleet.fleet import Climate, Weather, weather
from fed_lorac.reporting.watch import Watch
from fed_lorac.seeds import stream
from fed_lorac.simulation.engines import run
from fed_lorac.training.accuracy import accuracy

OWN = {"fleet__images": 0, "fleet__eval_images": 0, "fleet__corruptions": "none", "local__batch_size": 4}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cameras that saw two classes, twelve images each: every other one bright."""
    root = tmp_path_factory.mktemp("yard")
    for camera in ("east", "north", "south", "west"):
        for hour in range(12):
            pixels = stream(0, camera, hour).integers(0, 120, (16, 16, 3), np.uint8) + 130 * np.uint8(hour % 2)
            (root / camera / "ab"[hour % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / camera / "ab"[hour % 2] / f"{hour:02}.png")
    return root


def summary_of(settings: dict[str, object], out: Path) -> dict[str, Any]:
    run(tiny(**settings), out, Watch())
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def test_a_run_of_a_camera_fleet_names_its_cameras_and_leaves_their_images_as_they_are(
    yard: Path, tmp_path: Path
) -> None:
    own = OWN | {"data__name": "cameras", "data__root": str(yard), "data__image_size": 16, "fleet__stream": "time"}
    summary = summary_of(own | {"data__resize": "crop"}, tmp_path / "run")
    assert export_run(tmp_path / "run", "safetensors").metadata["input_resize"].startswith("cut out the middle square")
    assert summary["camera_names"] == {"0": "east", "1": "north", "2": "south", "3": "west"}
    assert list(summary["per_corruption"]) == ["none"]
    assert summary["clean_accuracy"]["adapted"] == summary["adapted_accuracy"]
    assert {(row["corruption"], row["severity"]) for row in rows(tmp_path / "run/cameras.jsonl")} == {("none", 0)}
    assert all(row["accuracy"] == row["accuracy_clean"] for row in rows(tmp_path / "run/rounds.jsonl"))
    mixed = summary_of(own | {"fleet__corruptions": "none, fog", "fleet__schedule": "front"}, tmp_path / "mixed")
    assert {"none"} < set(mixed["per_corruption"]) <= {"none", "fog", "clear"}


def test_images_that_stay_as_they_are_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = build_experiment(tiny(**OWN | {"fleet__corruptions": "none, fog", "fleet__images": 50}))
    counted = list[float]()

    def counting(*given: Any) -> float:
        counted.append(accuracy(*given))
        return counted[-1]

    monkeypatch.setattr("fed_lorac.client.local_update.accuracy", counting)
    as_they_are, _ = (evaluate_base(experiment, 0, camera) for camera in (0, 1))
    assert len(counted) == 2 + 4
    assert all(scores.weather == scores.clean for scores in as_they_are)


@pytest.mark.parametrize("schedule", ["constant", "front", "daily", "walk"])
def test_a_camera_without_a_corruption_has_none_in_any_round(schedule: str) -> None:
    climate = Climate(schedule, 4, 1.0, ("none", "fog", "snow"), 5, seed=3)
    found = [weather(climate, 0, Weather("none", 0), round) for round in range(60)]
    assert all(one.severity == 0 for one in found if one.corruption == "none")
    assert {one.corruption for one in found} == ({"none", "fog", "snow"} if schedule == "walk" else {"none"})


@pytest.mark.parametrize(
    ("asked", "law"),
    [
        ({"data__name": "cameras"}, "empty data.root"),
        ({"data__name": "traffic-signs", "fleet__label_skew": "dirichlet"}, "classes that they saw"),
        ({"fleet__stream": "time"}, 'fleet.stream = "time" with data.name = "digits"'),
        ({"data__resize": "stretch"}, "data.resize"),
    ],
)
def test_what_a_data_set_cannot_be_asked_is_refused_before_it_is_opened(asked: dict[str, object], law: str) -> None:
    with pytest.raises(ConfigError, match=law):
        tiny(**asked)


def test_too_many_cameras_are_refused_with_the_number_there_is(yard: Path) -> None:
    own = OWN | {"data__name": "cameras", "data__root": str(yard), "data__image_size": 16, "fleet__cameras": 5}
    with pytest.raises(ConfigError, match=r"has 4 cameras, got fleet.cameras = 5"):
        build_experiment(tiny(**own))


def test_a_base_of_the_clouds_cameras_has_seen_no_other(yard: Path) -> None:
    own = OWN | {"data__name": "cameras", "data__root": str(yard), "data__image_size": 16, "fleet__cameras": 3}
    config = tiny(**own, data__cameras__cloud_cameras="west")
    data = build_experiment(config).data
    said = {"data_set": "cameras", "cloud_share": "0.9", "data_fingerprint": data.fingerprint}
    assert saw_fleet_images(said, config, data) == "no"
    other = tiny(**own, data__cameras__cloud_cameras="east")
    assert saw_fleet_images(said, other, build_experiment(other).data) == "unknown"


def test_a_camera_fleet_without_a_cloud_trains_no_base(yard: Path) -> None:
    own = OWN | {"data__name": "cameras", "data__root": str(yard), "data__image_size": 16}
    config = tiny(**own)
    pretrained = replace(config, model=config.model.choose("weights", "pretrain"))
    with pytest.raises(DataError, match="keeps none"):
        build_experiment(pretrained)
