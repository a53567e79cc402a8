"""Whole runs of lora-xs, vera-b and subspace: gone on with byte for byte, and merged into what a device gets."""

from pathlib import Path

import pytest
from cut_runs import check_cut_run_ends_alike, tensors_moved_by_the_adapter
from small_runs import tiny


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
    check_cut_run_ends_alike(config, tmp_path, ("adapter.safetensors", "model.safetensors"))
    moved = tensors_moved_by_the_adapter(config, tmp_path / "whole")
    assert len(moved) == 10  # eight convolutions with branches, and the ends
