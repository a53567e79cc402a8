"""Laws of runs that measure a sample: what is trained and sent stays, and who is measured scores what it did."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import rows, tiny

from fed_lorac.client.base_scores import key_of
from fed_lorac.config import load_config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.compare import compare
from fed_lorac.reporting.tables import accuracy_table, notes
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

SCORES = ("accuracy", "accuracy_clean", "accuracy_source", "accuracy_zero_byte")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run measured whole, on two of its four cameras, and on 15 of each camera's 40 images."""
    folder = tmp_path_factory.mktemp("runs")
    for name, sample in (("all", {}), ("cameras", {"evaluate_cameras": 2}), ("images", {"evaluate_images": 15})):
        run(tiny(**sample), folder / name, Watch())
    return {name: folder / name for name in ("all", "cameras", "images")}


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_a_sample_changes_nothing_that_is_trained_sent_or_billed(runs: dict[str, Path]) -> None:
    rows_of = {
        name: (rows(path / "cameras.jsonl", *SCORES), (path / "model.safetensors").read_bytes())
        for name, path in runs.items()
    }
    assert rows_of["all"] == rows_of["cameras"] == rows_of["images"]


def test_cameras_of_a_sample_score_what_they_do_where_all_are_measured(runs: dict[str, Path]) -> None:
    every, some = (rows(runs[name] / "cameras.jsonl") for name in ("all", "cameras"))
    measured = {row["camera"] for row in some if row["accuracy"] is not None}
    assert measured == set(build_experiment(tiny(evaluate_cameras=2)).measured) and len(measured) == 2
    for one, other in zip(every, some, strict=True):
        assert [other[key] for key in SCORES] == [one[key] if one["camera"] in measured else None for key in SCORES]


def test_a_sample_of_images_is_the_same_in_all_weathers_and_rounds() -> None:
    whole, sampled = (build_experiment(tiny(evaluate_images=count)) for count in (0, 15))
    for camera in (0, 1):
        views = [sampled.images(camera, sampled.fleet.weather(camera, 1)), sampled.clear_images(camera)]
        assert views[1] is not None and all(len(view.test) == 15 for view in views if view)
        assert (views[0].test_labels == views[1].test_labels).all()
        clear = whole.clear_images(camera)
        assert clear is not None and {bytes(x.numpy()) for x in views[1].test} <= {bytes(x.numpy()) for x in clear.test}
    assert key_of(whole) != key_of(sampled) != key_of(build_experiment(tiny(evaluate_cameras=2)))


def test_a_sample_has_its_standard_error_in_summary_table_and_comparison(runs: dict[str, Path]) -> None:
    assert "standard_error" not in summary_of(runs["all"])
    for name in ("cameras", "images"):
        found = summary_of(runs[name])
        error = found["standard_error"]
        assert error["adapted"] > 0 and error.keys() == {"source", "zero_byte", "adapted", "clean"}
        console = Console(record=True, width=120)
        console.print(accuracy_table(found))
        [line] = [line for line in console.export_text().splitlines() if "standard error" in line]
        assert f"{100 * error['adapted']:.1f}" in line
        assert any("sample that was drawn once" in note for note in notes(found))
        assert f"points, is at most: {found['label']} {100 * error['adapted']:.2f}." in compare([runs[name]])
    assert "sample" not in compare([runs["all"]])


def test_a_sample_has_no_more_cameras_than_there_are_and_is_there_on_both_engines() -> None:
    with pytest.raises(ConfigError, match=r"evaluate_cameras = 5 of fleet\.cameras = 4"):
        tiny(evaluate_cameras=5)
    config = load_config(None, ["run.engine=flower", "evaluate_cameras=3"])
    assert len(build_experiment(config).measured) == config.run.tables["flower"]["evaluate_cameras"] == 3
