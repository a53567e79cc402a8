"""Laws of looking at a fleet first: what is shown is what the run then has, sees and sends."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import called
from PIL import Image
from small_runs import tiny, words

import fed_lorac as fl
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.fleet import Weather
from fed_lorac.reporting.contact_sheet import alternative
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

FRONT = {"fleet__schedule": "front", "run__rounds": 3}
WAYS = {
    "merged": {},
    "full, int8": {"adapter__method": "full", "strategy__name": "fedavg", "codec__up": "int8", "codec__down": "int8"},
    "two ranks": {"adapter__rank": "1, 2", "strategy__name": "flora", "fleet__per_round": 4},
    "zero-byte": {"strategy__name": "zero-byte"},
    "clusters": {"strategy__name": "clustered", "fleet__per_round": 4},
    "clusters alone": {"strategy__name": "clustered", "strategy__clustered__shared": False, "fleet__per_round": 4},
    "each its own rank": {"adapter__rank": "1, 2", "strategy__name": "flexlora", "fleet__per_round": 4},
}


@pytest.mark.parametrize("way", WAYS)
def test_bytes_to_come_are_those_that_the_run_sends(way: str, tmp_path: Path) -> None:
    config = tiny(**WAYS[way])
    told = fl.show_fleet(config).messages
    run(config, tmp_path / "run", Watch())
    sent = fl.load_run(tmp_path / "run").summary
    assert told is not None and bool(told.own) == (config.strategy.name in ("clustered", "flexlora"))
    assert told.total == pytest.approx(sent["total_bytes"], rel=2e-3)  # an update's frame by what its rank comes to
    assert told.uplink == sent["bytes"]["uplink_frame_bytes"]
    assert (told.full, told.full_fp32) == (sent["full_total_bytes"], sent["full_fp32_total_bytes"])


def test_who_is_away_in_the_first_round_does_not_make_its_update_smaller() -> None:
    some = {"fleet__cameras": 3, "fleet__per_round": 2, "run__seed": 5}
    away = {**some, "fleet__devices": "limited", "availability": 0.3}  # nobody can be reached in round 1
    found = [fl.show_fleet(tiny(**changes)).messages for changes in (some, away)]
    assert found[0] is not None and found[1] is not None and found[0].update == found[1].update > 1_000


def test_cameras_labels_and_weather_are_the_fleets_own(tmp_path: Path) -> None:
    view, fleet = fl.show_fleet(tiny(**FRONT)), build_experiment(tiny(**FRONT)).fleet
    for camera in fleet.cameras:
        row = view.cameras.iloc[camera.id]
        assert (row.camera, row.corruption, row.severity, row.link) == (
            *(camera.id, camera.corruption, camera.severity, camera.link),
        )
        assert (row.images, row.evaluation_images) == (len(camera.train), len(camera.evaluation))
        assert view.labels.iloc[camera.id].to_dict() == camera.label_mix
        assert row.commonest_share == max(camera.label_mix.values()) == camera.label_mix[row.commonest_class]
        for round in range(1, 4):
            seen = fleet.weather(camera.id, round)
            assert view.weather.loc[camera.id, round] == f"{seen.corruption} {seen.severity}"


def test_the_contact_sheet_shows_the_very_pixels_that_cameras_see(tmp_path: Path) -> None:
    still, moving = tiny(), tiny(**FRONT)
    for config, rounds in ((still, None), (moving, (1, 2, 3))):
        experiment, sheet = build_experiment(config), np.asarray(fl.show_fleet(config).picture(2, 3))
        for camera in range(2):
            for column in range(3):
                own = experiment.fleet.cameras[camera]
                weather = Weather(own.corruption, own.severity)
                if rounds is not None:
                    weather = experiment.fleet.weather(camera, rounds[column])
                seen = experiment.images(camera, weather).train
                pixels = seen[column * len(seen) // 3 if rounds is None else 0].numpy()
                top, left = (0 if rounds is None else 24) + 76 * camera, 190 + 76 * column
                tile = sheet[top : top + 72, left : left + 72]
                assert np.array_equal(
                    tile[1::9, 1::9], pixels[::4, ::4]
                )  # 72 pixels of 32: every ninth of every fourth
    file = fl.show_fleet(still).save_picture(tmp_path / "fleet.png")
    with Image.open(file) as drawn:
        assert drawn.info["Description"].startswith("What 4 of 4 cameras see")
    with pytest.raises(RunError, match="An existing file is kept"):
        fl.show_fleet(still).save_picture(file)
    assert fl.show_fleet(still).save_picture(tmp_path / "new" / "fleet.png", cameras=1, images=1).is_file()


def test_where_a_picture_cannot_go_is_said_before_it_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = fl.show_fleet(tiny())
    monkeypatch.setattr(type(view), "picture", lambda *asked: pytest.fail("drawn"))
    with pytest.raises(ConfigError, match=r"written as \.png; got .*fleet\.jpg"):
        view.save_picture(tmp_path / "new" / "fleet.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="a part of this one is a file"):
        view.save_picture(tmp_path / "file" / "fleet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command_shows_the_fleet_and_writes_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["fleet", *(part for word in words(**FRONT) for part in ("-c", word))]
    assert called(monkeypatch, *asked, "--picture", str(tmp_path / "a.png"), "--cameras", "3") == 0
    said = capsys.readouterr()
    shown = " ".join(said.out.split())
    assert (
        "weather over the" in shown
        and "rounds" in shown
        and "and 1 more" in shown
        and "3 of 4 cameras in each" in shown
    )
    assert "of full fine-tuning's in fp32" in shown and "under the same codec" in shown
    assert (tmp_path / "a.png").is_file() and "a.png" in said.err
    assert called(monkeypatch, *asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["cameras"]) == 4 and found["messages"]["total"] > 0
    view = fl.show_fleet(tiny(**FRONT))
    for row in found["cameras"]:
        assert row["label_mix"] == {str(name): its for name, its in view.labels.iloc[row["camera"]].items()}
        assert row["weather"] == view.weather.iloc[row["camera"]].tolist()


def test_a_walk_s_corruptions_are_shown_as_they_come() -> None:
    view = fl.show_fleet(tiny(fleet__schedule="walk", run__rounds=6, fleet__corruptions="fog, snow, contrast"))
    cells = list(view.table().columns[1].cells)
    for camera, cell in enumerate(cells):
        parts = [part.split() for part in str(cell).split(", ")]
        said = [f"{name} {severity}" for name, *severities in parts for severity in severities]
        assert said == view.weather.iloc[camera].tolist()
    assert any("," in str(cell) for cell in cells)
    said = alternative(view._experiment, 2).partition(" one row per camera, in ")[2].rstrip(".").split(", ")
    assert set(said) == {cell.split()[0] for row in view.weather.iloc[:2].to_numpy() for cell in row}


def test_a_fleet_shows_itself_in_a_notebook_and_in_a_line() -> None:
    view = fl.show_fleet(tiny())
    html = view._repr_html_()
    assert html.count("<tr") == 1 + 4 and 'alt="What 4 of 4 cameras see' in html and "data:image/png;base64," in html
    assert repr(view).startswith("<Fleet of 4 cameras: 2 rounds, 3 of 4 cameras in each.")
