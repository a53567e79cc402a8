"""Laws of fleets of which a sample is measured: who is not asked hears together, and is billed to the byte as alone."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import rows, tiny

from fed_lorac.config import Config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.overlapping import CamerasOnDemand
from fed_lorac.records.columns import CAMERA_COLUMNS, INTEGER, ROUND_COLUMNS
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

FLEET: dict[str, object] = {
    "fleet__cameras": 8,
    "fleet__per_round": 3,
    "fleet__deal": "overlapping",
    "fleet__images": 20,
    "fleet__eval_images": 10,
    "fleet__link": "lte-m, nb-iot-nb1, lte-m",
    "fleet__link_assignment": "random",
    "fleet__devices": "limited",
    "availability": 0.6,
    "dropout": 0.3,
    "strategy__quorum": 0.1,
    "local__schedule": "constant",
    "run__rounds": 5,
}
MEASURED = ("cameras_measured", "accuracy", "accuracy_clean", "accuracy_source", "accuracy_zero_byte")


def asked(measured: int = 0, **more: object) -> Config:
    return tiny(**FLEET | more, run__fleet__evaluate_cameras=measured)


def done(out: Path, config: Config, *, resume: bool = False) -> Path:
    run(config, out, Watch(), resume=resume)
    return out


def by_camera(folder: Path) -> dict[tuple[int, int], dict[str, Any]]:
    return {(row["round"], row["camera"]): row for row in rows(folder / "cameras.jsonl", *MEASURED)}


MULTICAST = {"fleet__lte-m__downlink": "multicast", "fleet__lte-m__repair_share": 0.4}
LOSSES = MULTICAST | {
    f"fleet__{link}__{key}": value for link in ("lte-m", "nb-iot") for key, value in (("loss", 0.03), ("attempts", 1))
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [{}, {"strategy__name": "local-only"}, {"strategy__name": "clustered"}, MULTICAST, LOSSES],
    ids=["merged", "local-only", "clustered", "multicast", "losses"],
)
def test_a_sampled_run_has_the_bytes_and_joules_of_one_that_measures_all(tmp_path: Path, how: dict[str, object]):
    strategy = how.get("strategy__name", "merged")
    eager = done(tmp_path / "eager", asked(**how))
    few = done(tmp_path / "few", asked(2, **how))
    totals, of_sample = (rows(folder / "rounds.jsonl", *MEASURED, "seconds") for folder in (eager, few))
    together = [row.pop("cameras_told_together") for row in of_sample]
    for one, other in zip(totals, of_sample, strict=True):
        exact = [name for name, kind in ROUND_COLUMNS.items() if kind is INTEGER and name in one]
        assert {name: one[name] for name in exact} == {name: other[name] for name in exact}
        assert one.keys() == other.keys() and one["reasons"] == other["reasons"]
        sums = [name for name, value in one.items() if isinstance(value, float)]
        assert [other[name] for name in sums] == pytest.approx([one[name] for name in sums], rel=1e-12)
    assert (sum(together) > 0) == (strategy != "clustered")  # whose parts each camera is sent by itself
    alone, listed = by_camera(eager), by_camera(few)
    assert listed == {key: alone[key] for key in listed}
    experiment = build_experiment(asked(2, **how))
    fleet, measured = experiment.fleet, frozenset(experiment.measured)
    for round in range(1, 6):
        who = set(fleet.drawn(round)) | (measured - fleet.away(round))
        assert strategy == "clustered" or {camera for r, camera in listed if r == round} == who
    assert (eager / "adapter.safetensors").read_bytes() == (few / "adapter.safetensors").read_bytes()


def test_a_sampled_run_that_goes_on_ends_as_one_that_was_not_stopped(tmp_path: Path):
    whole = done(tmp_path / "whole", asked(2))
    done(tmp_path / "parts", asked(2, run__rounds=3))
    parts = done(tmp_path / "parts", asked(2), resume=True)
    assert rows(parts / "rounds.jsonl", "seconds") == rows(whole / "rounds.jsonl", "seconds")
    assert rows(parts / "cameras.jsonl") == rows(whole / "cameras.jsonl")
    assert (parts / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()


def test_of_many_cameras_only_those_that_take_part_are_made(tmp_path: Path):
    many: dict[str, object] = {"fleet__cameras": 300_000, "run__rounds": 2}
    config = asked(4, **many)
    folder = done(tmp_path / "run", config)
    cameras = build_experiment(config).fleet.cameras
    assert isinstance(cameras, CamerasOnDemand) and cameras.made < 40
    for row in rows(folder / "rounds.jsonl"):
        assert row["cameras_measured"] <= 4 and row["cameras_told_together"] > 150_000
    listed = rows(folder / "cameras.jsonl")
    assert len(listed) <= 2 * 7 and all(row.keys() == CAMERA_COLUMNS.keys() for row in listed)
