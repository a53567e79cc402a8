"""Whole runs whose ends change by low rank: gone on with byte for byte, and merged into what a device gets."""

from pathlib import Path

import pytest
from cut_runs import check_cut_run_ends_alike, tensors_moved_by_the_adapter
from small_runs import tiny

from fed_lorac.config import Config

FILES = ("adapter.safetensors", "model.safetensors")


def config_of(method: str, strategy: str, rank: int | str) -> Config:
    return tiny(
        adapter__method=method,
        strategy__name=strategy,
        fleet__images=25,
        fleet__eval_images=20,
        **({"adapter__rank": rank} if "lora" in method else {}),
        **({"strategy__merged__downlink": "dense"} if strategy == "merged" else {}),
        **{f"adapter__{part}__end_rank": 2 for part in method.split(" + ")},
    )


@pytest.mark.parametrize(
    ("method", "strategy", "rank"),
    [
        ("norm-affine", "fedavg", 2),
        pytest.param("norm-affine", "rotating-basis", 2, marks=pytest.mark.slow),
        pytest.param("lora-c", "merged", "1, 2", marks=pytest.mark.slow),
        pytest.param("lora-c", "flora", "1, 2", marks=pytest.mark.slow),
        pytest.param("lora-c", "rotating-basis", 2, marks=pytest.mark.slow),
        pytest.param("lora-xs", "merged", 2, marks=pytest.mark.slow),
        pytest.param("norm-affine + lora-c", "merged", 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_cut_ends_byte_for_byte_alike_and_its_model_is_the_base_with_the_delta(
    tmp_path: Path, method: str, strategy: str, rank: int | str
) -> None:
    config = config_of(method, strategy, rank)
    check_cut_run_ends_alike(config, tmp_path, FILES)
    assert {"conv1.weight", "fc.weight"} <= set(tensors_moved_by_the_adapter(config, tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "rank"), [("flexlora", "1, 2"), ("factor-fedavg", 2), ("clustered", 2)])
def test_strategies_that_are_not_exact_take_such_ends_too(tmp_path: Path, strategy: str, rank: int | str) -> None:
    check_cut_run_ends_alike(config_of("lora-c", strategy, rank), tmp_path, FILES)
