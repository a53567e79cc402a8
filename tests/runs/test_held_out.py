"""Laws of weathers that are held out: their cameras train in no round, hear every update, and are measured."""

import json
from pathlib import Path

import pytest
from small_runs import rows, tiny

from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

FLEET = {
    "fleet__cameras": 6,
    "fleet__per_round": 2,
    "fleet__corruptions": "fog, snow, frost",
    "fleet__images": 20,
    "fleet__eval_images": 20,
    "run__rounds": 3,
}
HELD = {2, 5}


def test_cameras_of_a_weather_that_is_held_out_hear_and_are_measured_and_never_train(tmp_path: Path) -> None:
    run(tiny(**FLEET, fleet__held_out="frost", local__lr=0.2), tmp_path / "run", Watch())
    trained, heard = set[int](), set[int]()
    for row in rows(tmp_path / "run" / "cameras.jsonl"):
        if row["round"] == 0:
            continue
        assert row["accuracy"] is not None
        (trained if row["status"] == "counted" else heard).add(row["camera"])
        assert row["downlink_frame_bytes"] or row["status"] == "counted"
        assert row["camera"] not in HELD or row["uplink_frame_bytes"] == 0
    assert trained and not trained & HELD and heard >= HELD
    assert "frost" in json.loads((tmp_path / "run" / "summary.json").read_text())["per_corruption"]


def test_holding_out_moves_no_other_cameras_draw() -> None:
    fleets = {held: build_experiment(tiny(**FLEET, fleet__held_out=held)).fleet for held in ("", "frost")}
    for round in range(1, 40):
        everyone, without = (fleet.drawn(round) for fleet in fleets.values())
        assert len(without) == 2 and not set(without) & HELD
        assert set(everyone) - HELD <= set(without)


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"fleet__held_out": "contrast"}, "Weathers that are held out are some of the fleet's.* or add contrast"),
        ({"fleet__held_out": "fog, frost", "fleet__per_round": 3}, "which leaves 2 cameras for fleet.per_round = 3"),
        ({"fleet__held_out": "fog, snow, frost"}, "which leaves 0 cameras"),
        ({"fleet__held_out": "fog", "fleet__schedule": "walk"}, "held out where cameras keep to theirs"),
    ],
)
def test_what_cannot_be_held_out_is_refused(changes: dict[str, object], law: str) -> None:
    with pytest.raises(ConfigError, match=law):
        tiny(**{**FLEET, **changes})
