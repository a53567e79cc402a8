"""Whole runs of every adapter, aggregator and server optimizer: averages are exact, cameras count, a run resumes."""

from pathlib import Path

import pytest
from named_adapters import named_adapter
from small_runs import rows, tiny

from fed_lorac.registry import ADAPTERS, AGGREGATORS
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run


def strategy_of(method: str) -> str:
    return "fedavg" if named_adapter(method).linear else "merged"


def settings(method: str) -> dict[str, object]:
    """What makes averages exact, and what the method needs."""
    found: dict[str, object] = {"downlink": "dense"} if strategy_of(method) == "merged" else {}
    return found | ({"batch_norm__mode": "frozen"} if named_adapter(method).adapts_to_batch else {})


@pytest.mark.parametrize("method", sorted(ADAPTERS.names))
def test_a_run_of_every_method_averages_exactly(tmp_path: Path, method: str):
    config = tiny(adapter__method=method, strategy__name=strategy_of(method), **settings(method))
    run(config, tmp_path, Watch())
    found = rows(tmp_path / "rounds.jsonl")
    assert all(row["aggregation_error"] < 1e-6 and row["cameras_counted"] == 3 for row in found)
    if method != "full":
        assert all(row["uplink_message_bytes"] < row["full_uplink_message_bytes"] for row in found)


def test_svd_goes_down_in_the_view_of_the_factors(tmp_path: Path):
    run(tiny(adapter__method="conv-lora", run__rounds=3), tmp_path, Watch())
    found = rows(tmp_path / "rounds.jsonl")
    assert found[0]["downlink_frame_bytes"] * 3 == pytest.approx(found[0]["uplink_frame_bytes"] * 4, rel=0.02)


@pytest.mark.parametrize(("m1", "strategy"), [(0, "fedavg"), (0, "merged"), (3, "merged")])
def test_filter_atoms_of_both_forms_average_exactly(tmp_path: Path, m1: int, strategy: str):
    how: dict[str, object] = {"downlink": "dense"} if strategy == "merged" else {}
    config = tiny(adapter__method="filter-atoms", m1=m1, strategy__name=strategy, **how)
    run(config, tmp_path, Watch())
    assert all(row["aggregation_error"] < 1e-6 for row in rows(tmp_path / "rounds.jsonl"))


def test_a_fleet_of_unequal_ranks_may_use_a_lossy_codec(tmp_path: Path):
    changes = {"adapter.rank": "1, 2", "codec.up": "drive", "strategy.name": "flora"}
    run(tiny(**changes), tmp_path, Watch())
    assert all(row["cameras_counted"] == 3 for row in rows(tmp_path / "rounds.jsonl"))


@pytest.mark.parametrize("name", sorted(set(AGGREGATORS.names) - {"mean"}))
def test_a_run_counts_every_camera_under_an_aggregator(tmp_path: Path, name: str) -> None:
    own = {"clipped": {"noise": 0.1}, "krum": {"malicious": 0}, "trimmed": {"trim_fraction": 0.25}}
    run(tiny(strategy__aggregator=name, fleet__per_round=4, **own.get(name, {})), tmp_path, Watch())
    assert all(not row["skipped"] and row["cameras_counted"] == 4 for row in rows(tmp_path / "rounds.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "lr", "downlink"),
    [
        ("momentum", 1.0, "svd"),  # its moments are stacked factors, adam's are dense
        ("adam", 0.01, "dense"),
        ("momentum", 1.0, "dense"),
        ("adam", 0.01, "svd"),
        ("yogi", 0.01, "dense"),
        ("yogi", 0.01, "svd"),
    ],
)
def test_a_run_under_an_optimizer_is_gone_on_with_byte_for_byte(
    tmp_path: Path, server: str, lr: float, downlink: str
) -> None:
    own: dict[str, object] = {"strategy__server_optimizer": server, f"strategy__{server}__lr": lr}
    config = tiny(run__rounds=2, block_size=1, downlink=downlink, **own)

    class Ended(Watch):
        def round(self, row: dict[str, object], of: int) -> None:
            raise KeyboardInterrupt

    run(config, tmp_path / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended())
    run(config, tmp_path / "cut", Watch(), resume=True)
    for name in ("adapter.safetensors", "model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(rows(tmp_path / "cut" / "rounds.jsonl")) == 2
    plain = tiny(run__rounds=2, block_size=1, downlink=downlink)
    run(plain, tmp_path / "plain", Watch())
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
