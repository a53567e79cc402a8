"""Whole runs of lora-xs, vera-b and subspace: gone on with byte for byte, and merged into what a device gets."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_runs import rows, tiny

from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.experiment.build import build_experiment
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run


class Ended(Watch):
    def round(self, row: dict[str, object], of: int) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("method", "strategy"),
    [
        ("lora-xs", "fedavg"),
        pytest.param("lora-xs", "rotating-basis", marks=pytest.mark.slow),
        pytest.param("vera-b", "fedavg", marks=pytest.mark.slow),
        pytest.param("vera-b", "rotating-basis", marks=pytest.mark.slow),
        pytest.param("subspace", "fedavg", marks=pytest.mark.slow),
        pytest.param("subspace", "rotating-basis", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_cut_ends_byte_for_byte_alike_and_its_model_is_the_base_with_the_delta(
    tmp_path: Path, method: str, strategy: str
) -> None:
    config = tiny(adapter__method=method, strategy__name=strategy, fleet__images=25, fleet__eval_images=20)
    run(config, tmp_path / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended())
    run(config, tmp_path / "cut", Watch(), resume=True)
    for name in ("adapter.safetensors", "model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert all(row["aggregation_error"] < 1e-6 for row in rows(tmp_path / "whole" / "rounds.jsonl"))
    base = named_tensors(build_experiment(config).base.model)
    expected = {name: tensor.clone() for name, tensor in base.items()}
    apply_delta(expected, load_file(tmp_path / "whole" / "adapter.safetensors"), 1.0)
    merged = load_file(tmp_path / "whole" / "model.safetensors")
    moved = [name for name, tensor in base.items() if not (expected[name] == tensor).all()]
    assert len(moved) == 10  # eight convolutions with branches, and the ends
    for name in moved:
        assert (merged[name] - expected[name]).abs().max() < 1e-6 * (1 + merged[name].abs().max())
