"""Whole runs on a network of depthwise, grouped and oblong convolutions."""

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from small_runs import rows, tiny

from fed_lorac.client.agreement import uplink_template
from fed_lorac.client.shapes import one_after_another
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

EXACT: dict[str, dict[str, Any]] = {
    "merged": {"strategy__name": "merged", "downlink": "dense", "rank": "1, 4"},
    "flora": {"strategy__name": "flora", "rank": "1, 4"},
    "rotating-basis": {"strategy__name": "rotating-basis"},
    "fedavg": {"strategy__name": "fedavg", "adapter__method": "aad"},
    "fedavg of atoms": {"strategy__name": "fedavg", "adapter__method": "filter-atoms"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "merged svd": {"strategy__name": "merged", "codec__up": "int8"},
    "flexlora": {"strategy__name": "flexlora", "rank": "1, 4"},
    "factor-fedavg": {"strategy__name": "factor-fedavg", "adapter__method": "lorae"},
    "clustered": {"strategy__name": "clustered"},
}


def config(**settings: Any) -> Any:
    return tiny(model__name="grouped:Mobile", width=None, **settings)


QUICK = "merged"  # the others run with the slow tests


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow) for name in (*EXACT, *OTHERS)]
)
def test_every_strategy_runs_on_grouped_convolutions_and_the_exact_ones_are_exact(name: str, tmp_path: Path) -> None:
    run(config(**{**EXACT, **OTHERS}[name]), tmp_path, Watch())
    errors = [row["aggregation_error"] for row in rows(tmp_path / "rounds.jsonl")]
    assert all(error < (1e-6 if name in EXACT else 1.0) for error in errors)
    with safe_open(tmp_path / "adapter.safetensors", "pt") as written:  # type: ignore[no-untyped-call]
        assert {key.split(".")[0] for key in written.keys()} >= {"0", "3", "8", "10", "12", "16"}  # noqa: SIM118


def test_a_run_says_why_cameras_train_one_after_another() -> None:
    """A network of one's own: what its forward makes of the channels is not known."""
    asked = one_after_another(build_experiment(config(block_size=2)))
    assert asked == "Cameras train one after another: no side-by-side form is known for the network, a Mobile."
    assert one_after_another(build_experiment(config())) is None
    assert one_after_another(build_experiment(tiny(block_size=2))) is None


def test_cameras_of_every_rank_train_the_same_grouped_convolutions_as_they_are() -> None:
    experiment = build_experiment(config(rank="1, 4, 2", rank_mode="r"))
    templates = [uplink_template(experiment, place) for place in range(len(experiment.adapters))]
    assert templates[0].keys() == templates[1].keys() == templates[2].keys()
    assert {"3.weight", "8.weight", "10.A", "12.A"} <= templates[0].keys()
