"""Whole runs whose cameras catch up by updates or by a whole model: the same bytes, by our grid and by a ClientApp."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import rounds_run, rows, tiny
from test_whole_model import AWAY, METHODS

from fed_lorac.client.app import make_client_app
from fed_lorac.experiment.experiment import Experiment
from fed_lorac.grid.in_process import in_process
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.server.fleet_strategy import FleetStrategy
from fed_lorac.simulation import run as conducting
from fed_lorac.simulation.build_strategy import strategy_of
from fed_lorac.simulation.engines import run


def by_updates_alone(experiment: Experiment, **settings: Any) -> FleetStrategy:
    strategy = strategy_of(experiment, **settings)
    strategy._downlink.encode_global_model = None
    return strategy


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(METHODS))
def test_models_are_the_same_bytes_whichever_way_cameras_catch_up(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(**AWAY, **METHODS[method])
    run(config, tmp_path / "smaller", Watch())
    grid = in_process(make_client_app(config), config.fleet.cameras)
    with task_identity():
        rounds_run(grid, config, tmp_path / "client app")
    with monkeypatch.context() as patch:
        patch.setattr(conducting, "strategy_of", by_updates_alone)
        run(config, tmp_path / "updates", Watch())
    down = (*(f"downlink_{what}_bytes" for what in ("payload", "frame", "message")), "downlink_bytes_on_air")
    down += ("downlink_time_s", "reply_s", "energy_radio_j")
    smaller, client, updates = (
        rows(tmp_path / name / "cameras.jsonl", *down) for name in ("smaller", "client app", "updates")
    )
    assert smaller == updates
    assert client == smaller
    assert results(tmp_path / "smaller") == results(tmp_path / "updates")
    assert results(tmp_path / "client app")["model.safetensors"] == results(tmp_path / "updates")["model.safetensors"]
    billed = {
        name: sum(row["downlink_message_bytes"] for row in rows(tmp_path / name / "cameras.jsonl"))
        for name in ("smaller", "client app", "updates")
    }
    assert billed["smaller"] == billed["client app"] < billed["updates"]
