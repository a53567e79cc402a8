"""Laws of whole runs in which cameras fail: left out with a reason, everyone else counted, later rounds untouched."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from faulty import WRONG, Faults, go
from small_runs import ROOT, rounds_run, rows, tiny

from fed_lorac.client.handlers import FleetApp
from fed_lorac.client.request import ClientReply, ClientRequest
from fed_lorac.client.state import GlobalModel
from fed_lorac.config import Config
from fed_lorac.errors import RunError
from fed_lorac.records.run_folder import can_go_on
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.simulation.engines import Fleet, run

REASONS = {
    "raises": "raised: ValueError: camera 3 has a cracked lens",
    "dies": "worker died",
    "hangs": "no reply within 4 s",
    "truncated": "truncated",
    "flipped": "damaged",
    "nan": "non-finite",
    "resized": "wrong shape of fc.weight: (9, 16), not (10, 16)",
    "huge": "the change of fc is beyond 2^100",
    "stale": "other base",
}


def six(**changes: object) -> Config:
    """Six cameras, all asked in every round; trained alone, so that a failure regroups nobody."""
    fleet = {
        "fleet__cameras": 6,
        "fleet__per_round": 6,
        "fleet__images": 25,
        "fleet__eval_images": 10,
        "block_size": 1,
    }
    return tiny(**{"run__workers": 1, **fleet, **changes})


def reasons(folder: Path) -> list[dict[str, int]]:
    return [row["reasons"] for row in rows(folder / "rounds.jsonl")]


def bare(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What a run's adapter is, and who counted in which round."""
    status = [{k: row[k] for k in ("round", "camera", "status")} for row in rows(folder / "cameras.jsonl")]
    return (folder / "adapter.safetensors").read_bytes(), status


@pytest.fixture(autouse=True)
def workers_find_the_faulty_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests/helpers"), str(ROOT)]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def raised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which camera 3 raises in round 1, each camera trained alone."""
    return go(six(), tmp_path_factory.mktemp("raised") / "run", {3: "raises"})


def test_a_run_in_which_no_camera_trained_has_no_result_but_the_commonest_error(tmp_path: Path):
    out, faults = tmp_path / "run", {k: "raises" if k else "nan" for k in range(6)}
    with pytest.raises(RunError, match=r"in 1 rounds none did.* \(5 of 6\): raised: ValueError: camera 1 has"):
        go(six(run__rounds=1), out, faults)
    assert not (out / "summary.json").exists() and len(rows(out / "rounds.jsonl")) == 1
    assert not can_go_on(out)


def test_replies_that_the_radio_loses_are_no_fault_of_the_run(tmp_path: Path):
    run(six(run__rounds=1, fleet__devices="limited", round_s=0.001), tmp_path / "run", Watch())
    assert reasons(tmp_path / "run") == [{"late": 6}]
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_run_whose_base_no_camera_can_measure_ends_at_once(tmp_path: Path):
    config = tiny(keep_base_scores=False)
    blind = Fleet(config, partial(Blind, config.to_flat()))
    with (
        task_identity(),
        closing(blind) as fleet,
        pytest.raises(RunError, match=r"all 4 cameras failed.* \(4 of 4\): ValueError: no lens\."),
    ):
        rounds_run(fleet.grid, config, tmp_path / "run", memories=fleet)
    assert not (tmp_path / "run").exists()


class Blind(FleetApp):
    """Cameras without lenses."""

    def answer(self, requests: Sequence[ClientRequest], shared: GlobalModel) -> list[ClientReply]:
        if requests[0].message.metadata.message_type == "evaluate":
            raise ValueError("no lens")
        return super().answer(requests, shared)


def test_a_camera_that_raises_is_left_out_of_its_round_alone(raised: Path):
    assert reasons(raised) == [{REASONS["raises"]: 1}, {}]
    assert [row["cameras_counted"] for row in rows(raised / "rounds.jsonl")] == [5, 6]


@pytest.mark.parametrize("fault", sorted(WRONG))
def test_a_frame_that_arrives_wrong_counts_as_little_as_none(tmp_path: Path, raised: Path, fault: str):
    found = go(six(), tmp_path / "run", {3: fault})
    assert reasons(found) == [{REASONS[fault]: 1}, {}]
    assert rows(found / "cameras.jsonl")[3]["uplink_message_bytes"] > 0
    # The others' weights sum to 1 without it, whatever became of it; what it learnt of its own weather, it keeps.
    assert bare(found) == bare(raised)


def test_who_raises_in_a_block_takes_nobody_along(tmp_path: Path):
    found = go(six(block_size=3), tmp_path / "run", {3: "raises", 5: "raises"})
    assert [row["cameras_counted"] for row in rows(found / "rounds.jsonl")] == [4, 6]
    assert set(reasons(found)[0]) == {f"raised: ValueError: camera {k} has a cracked lens" for k in (3, 5)}


@pytest.mark.parametrize("size", [1, 3])
def test_where_all_cameras_fail_the_round_is_skipped_and_nothing_changes(tmp_path: Path, size: int):
    config = six(block_size=size, run__rounds=3, local__schedule="constant")
    failed = go(config, tmp_path / "failed", dict.fromkeys(range(6), "raises"), round=2)
    found = rows(failed / "rounds.jsonl")
    assert [row["skipped"] for row in found] == [False, True, False]
    assert found[1]["accuracy"] == found[0]["accuracy"] and found[1]["downlink_frame_bytes"] == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_once_changes_nothing(tmp_path: Path):
    config = six(run__workers=2, block_size=2)
    killed, whole = (go(config, tmp_path / name, faults) for name, faults in (("a", {3: "dies once"}), ("b", {})))
    assert (killed / "marks" / "died-3").exists()
    assert bare(killed) == bare(whole) and reasons(killed) == [{}, {}]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["dies", "hangs"])
def test_a_camera_that_takes_its_worker_along_is_left_out_of_its_round_alone(tmp_path: Path, raised: Path, fault: str):
    found = go(six(run__workers=2, block_timeout_s=4.0), tmp_path / "run", {3: fault})
    assert reasons(found) == [{REASONS[fault]: 1}, {}]
    assert bare(found) == bare(raised)


@pytest.mark.slow
def test_the_guilty_of_a_block_are_found(tmp_path: Path):
    faults: Faults = {1: "dies", 4: "raises"}
    found = go(six(run__workers=2, block_size=3), tmp_path / "run", faults)
    assert [row["cameras_counted"] for row in rows(found / "rounds.jsonl")] == [4, 6]


@pytest.fixture
def four_cpus(workers_find_the_faulty_fleet: None) -> Iterator[None]:
    """A Ray that declares four CPUs, whatever this machine has: executors stay in the one their process joined."""
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_workers_and_the_order_of_replies_change_nothing(four_cpus: None, tmp_path: Path, size: int):
    dawdlers = dict.fromkeys(range(6), "dawdles")
    found = [
        go(six(run__workers=workers, block_size=size), tmp_path / str(workers), {} if workers == 1 else dawdlers)
        for workers in (1, 2, 4)
    ]
    for name in ("adapter.safetensors", "model.safetensors", "cameras.safetensors"):
        assert len({(folder / name).read_bytes() for folder in found}) == 1, name
    for name in ("rounds.jsonl", "cameras.jsonl"):
        one, two, four = (rows(folder / name, "seconds") for folder in found)
        assert one == two == four


def test_a_reply_after_the_deadline_is_lost(tmp_path: Path):
    found = go(six(run__round_timeout_s=1.5, run__rounds=1), tmp_path / "run", dict.fromkeys(range(6), "dawdles"))
    [row] = rows(found / "rounds.jsonl")
    assert 0 < row["reasons"]["no reply"] == row["cameras_left_out"] < 6
