"""Laws of the remark on a strategy that sends far more than it needs: measured, and with the better choice."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from small_runs import tiny

from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

ATOMS = {"adapter__method": "filter-atoms"}
PLAIN = 'strategy.name = "fedavg" is exact too'
STATES = 'strategy.clustered.downlink = "state" is exact too'
SVD = 'strategy.merged.downlink = "svd" is exact over the rounds'


def remarks(out: Path, caplog: pytest.LogCaptureFixture, **changes: object) -> list[str]:
    """Of a real run: in its summary, and said once as it went."""
    with caplog.at_level(logging.WARNING):
        run(tiny(**changes), out, Watch())
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    said = [record.getMessage() for record in caplog.records if "Updates are far larger" in record.getMessage()]
    assert said == found["remarks"]
    return said


@pytest.mark.parametrize(
    ("changes", "better"),
    [
        (ATOMS, PLAIN),
        (ATOMS | {"strategy__name": "clustered"}, STATES),
        (ATOMS | {"codec__up": "drive", "codec__down": "int8", "width": 16}, PLAIN),
        ({"adapter__rank": 1, "rank_mode": "r", "downlink": "dense", "width": 16}, SVD),
    ],
    ids=["atoms", "personal", "codecs", "dense"],
)
def test_what_another_exact_strategy_sends_far_less_of_is_remarked(
    changes: dict[str, object], better: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [said] = remarks(tmp_path / "run", caplog, run__rounds=1, **changes)
    assert better in said


def test_the_better_choice_sends_what_the_remark_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    [said] = remarks(tmp_path / "merged", caplog, **ATOMS)
    caplog.clear()
    assert remarks(tmp_path / "fedavg", caplog, **ATOMS, strategy__name="fedavg") == []
    for name in ("merged", "fedavg"):
        camera = json.loads((tmp_path / name / "cameras.jsonl").read_text().splitlines()[3])  # it was not drawn
        assert camera["status"] == "idle" and f"{camera['downlink_frame_bytes']:,} bytes" in said


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"codec__up": "drive"},  # what a codec saves on one way alone is its user's choice
        {"adapter__method": "norm-affine"},
        {"adapter__method": "aad"},
        ATOMS | {"m1": 3},  # dense, and there is no other way
        ATOMS | {"strategy__server_optimizer": "adam"},  # plain cannot take it
        {"strategy__name": "local-only"},
    ],
    ids=["lora-c", "drive up", "norm-affine", "aad", "bilinear", "adam", "silent"],
)
def test_what_cannot_be_sent_for_far_less_is_not_remarked(
    changes: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert remarks(tmp_path / "run", caplog, **{"run__rounds": 1, **changes}) == []


def test_a_resumed_run_remarks_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny(run__rounds=1, **ATOMS)
    run(config, tmp_path / "run", Watch())
    first = json.loads((tmp_path / "run" / "summary.json").read_text())["remarks"]
    run(config, tmp_path / "run", Watch(), resume=True)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["remarks"] == first != []
