"""Whole runs by forward passes alone: a few dozen bytes a round, gone on with byte for byte, missed rounds replayed."""

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


METHODS = ["norm-affine + lora-xs", *(pytest.param(one, marks=pytest.mark.slow) for one in ("full", "subspace"))]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_cut_ends_byte_for_byte_alike_and_its_model_is_the_base_with_the_delta(
    tmp_path: Path, method: str
) -> None:
    away = {"fleet__devices": "limited", "availability": 0.5, "strategy__quorum": 0.1, "run__rounds": 3}
    small = {"adapter__method": method, "fleet__images": 25, "fleet__eval_images": 20, "codec__up": "fp16"}
    config = tiny(strategy__name="zeroth-order", **small, **away)
    run(config, tmp_path / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended())
    run(config, tmp_path / "cut", Watch(), resume=True)
    for name in ("adapter.safetensors", "model.safetensors", "cameras.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    cameras = rows(tmp_path / "whole" / "cameras.jsonl")
    sent = {row["uplink_frame_bytes"] for row in cameras if row["status"] == "counted"}
    assert sent == {2 * 16 + 19}
    down = {row["downlink_frame_bytes"] for row in cameras}
    assert down - {0} == {n * (4 * 16 + 19) for n in (1, 2, 3)}  # who missed rounds replays them
    assert all(row["aggregation_error"] < 1e-6 for row in rows(tmp_path / "whole" / "rounds.jsonl"))
    base = named_tensors(build_experiment(config).base.model)
    expected = {name: tensor.clone() for name, tensor in base.items()}
    apply_delta(expected, load_file(tmp_path / "whole" / "adapter.safetensors"), 1.0)
    merged = load_file(tmp_path / "whole" / "model.safetensors")
    moved = [name for name, tensor in base.items() if not (expected[name] == tensor).all()]
    assert moved
    for name in moved:
        assert (merged[name] - expected[name]).abs().max() < 1e-6 * (1 + merged[name].abs().max())
