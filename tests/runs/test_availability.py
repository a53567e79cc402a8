"""Laws of fleets whose cameras are away or drop out: who misses what, who catches up, who is billed."""

from pathlib import Path

import pytest
from small_runs import rows, tiny

from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.wire.refusals import DROPPED_OUT

FLEET = {
    "fleet__cameras": 8,
    "fleet__per_round": 6,
    "fleet__images": 20,
    "fleet__eval_images": 20,
    "strategy__quorum": 0.1,
    "run__rounds": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    run(tiny(**FLEET, fleet__devices="limited", availability=0.6, dropout=0.3), out, Watch())
    return out


def by_round(folder: Path) -> dict[int, dict[int, dict[str, object]]]:
    found: dict[int, dict[int, dict[str, object]]] = {}
    for row in rows(folder / "cameras.jsonl"):
        found.setdefault(int(row["round"]), {})[int(row["camera"])] = row
    return found


def test_the_ledger_has_what_the_streams_say(folder: Path):
    fleet = build_experiment(tiny(**FLEET, fleet__devices="limited", availability=0.6, dropout=0.3)).fleet
    away = dropped = 0
    for round, cameras in by_round(folder).items():
        drawn = set(fleet.drawn(round))
        lost = drawn & fleet.dropped(round)
        assert {k for k, row in cameras.items() if row["status"] == "counted"} == drawn - lost
        assert {k for k, row in cameras.items() if row["reason"] == DROPPED_OUT} == lost
        assert {k for k, row in cameras.items() if row["reason"] == "away"} == set(fleet.away(round))
        assert all(cameras[k]["status"] == "idle" for k in fleet.away(round))
        away, dropped = away + len(fleet.away(round)), dropped + len(lost)
    assert away and dropped


def test_a_camera_that_drops_out_was_asked_and_sends_nothing(folder: Path):
    lost = [row for cameras in by_round(folder).values() for row in cameras.values() if row["reason"] == DROPPED_OUT]
    assert all(row["status"] == "left out" and row["uplink_message_bytes"] == 0 for row in lost)
    assert all(int(row["downlink_message_bytes"]) > 0 for row in lost)  # type: ignore[call-overload]


def test_a_camera_that_was_away_is_sent_nothing_and_is_billed_for_catching_up(folder: Path):
    fleet = build_experiment(tiny(**FLEET, fleet__devices="limited", availability=0.6, dropout=0.3)).fleet
    found = by_round(folder)
    for round, cameras in found.items():
        assert all(cameras[k]["downlink_message_bytes"] == 0 for k in fleet.away(round))
    once = min(int(row["downlink_frame_bytes"]) for row in found[1].values() if row["downlink_frame_bytes"])  # type: ignore[call-overload]
    missed_once = fleet.away(1) - fleet.away(2)
    unheard = set(fleet.drawn(2)) & fleet.dropped(2)  # told when asked, and, as nothing came back, once more
    assert missed_once and all(found[2][k]["downlink_frame_bytes"] == (2 + (k in unheard)) * once for k in missed_once)


def test_another_run_has_the_same_cameras_away(tmp_path: Path, folder: Path):
    run(tiny(**FLEET, fleet__devices="limited", availability=0.6, dropout=0.3), tmp_path / "again", Watch())
    assert rows(tmp_path / "again" / "cameras.jsonl") == rows(folder / "cameras.jsonl")
    assert (tmp_path / "again" / "adapter.safetensors").read_bytes() == (folder / "adapter.safetensors").read_bytes()


def test_a_round_that_nobody_can_be_reached_in_is_skipped(tmp_path: Path):
    run(tiny(run__rounds=2, fleet__devices="limited", availability=1e-9), tmp_path, Watch())
    found = rows(tmp_path / "rounds.jsonl")
    assert all(row["skipped"] and row["cameras_counted"] == 0 and row["downlink_message_bytes"] == 0 for row in found)
    assert all(row["accuracy"] is None for row in found)


def test_full_fine_tuning_takes_the_bytes_and_joules_that_others_are_held_against(tmp_path: Path) -> None:
    settings = {"adapter__method": "full", "strategy__name": "fedavg", "fleet__devices": "limited", "availability": 0.6}
    run(tiny(run__rounds=6, **settings), tmp_path, Watch())
    ledger = rows(tmp_path / "rounds.jsonl")
    assert len({row["downlink_frame_bytes"] for row in ledger}) > 1  # some catch up, some of them twice in a round
    for row in ledger:
        assert row["downlink_frame_bytes"] == row["full_fp32_downlink_frame_bytes"]
        assert row["energy_radio_j"] == pytest.approx(row["full_fp32_energy_radio_j"])
