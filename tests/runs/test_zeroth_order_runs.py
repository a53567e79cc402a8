"""Whole runs by forward passes alone: a few dozen bytes a round, gone on with byte for byte, missed rounds replayed."""

from pathlib import Path

import pytest
from cut_runs import check_cut_run_ends_alike, tensors_moved_by_the_adapter
from small_runs import rows, tiny

METHODS = ["norm-affine + lora-xs", *(pytest.param(one, marks=pytest.mark.slow) for one in ("full", "subspace"))]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_cut_ends_byte_for_byte_alike_and_its_model_is_the_base_with_the_delta(
    tmp_path: Path, method: str
) -> None:
    away = {"fleet__devices": "limited", "availability": 0.5, "strategy__quorum": 0.1, "run__rounds": 3}
    small = {"adapter__method": method, "fleet__images": 25, "fleet__eval_images": 20, "codec__up": "fp16"}
    config = tiny(strategy__name="zeroth-order", **small, **away)
    check_cut_run_ends_alike(config, tmp_path, ("adapter.safetensors", "model.safetensors", "cameras.jsonl"))
    cameras = rows(tmp_path / "whole" / "cameras.jsonl")
    sent = {row["uplink_frame_bytes"] for row in cameras if row["status"] == "counted"}
    assert sent == {2 * 16 + 19}
    down = {row["downlink_frame_bytes"] for row in cameras}
    assert down - {0} == {n * (4 * 16 + 19) for n in (1, 2, 3)}  # who missed rounds replays them
    assert tensors_moved_by_the_adapter(config, tmp_path / "whole")
