"""A run that was cut and goes on, and what its model is made of: for tests of whole runs."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_runs import rows

from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.config import Config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

__all__ = ["check_cut_run_ends_alike", "tensors_moved_by_the_adapter"]


class Ended(Watch):
    def round(self, row: dict[str, object], of: int) -> None:
        raise KeyboardInterrupt


def check_cut_run_ends_alike(config: Config, folder: Path, files: Sequence[str]) -> None:
    """Run `config` whole in `folder/whole`; cut after its first round and resumed in `folder/cut`: the same bytes."""
    run(config, folder / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, folder / "cut", Ended())
    run(config, folder / "cut", Watch(), resume=True)
    for name in files:
        assert (folder / "cut" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def tensors_moved_by_the_adapter(config: Config, done: Path) -> list[str]:
    """The base's tensors that a run's adapter moves; its averages are exact, its model is the base with the adapter."""
    errors = [row["aggregation_error"] for row in rows(done / "rounds.jsonl")]
    assert all(error < 1e-6 for error in errors if error is not None)  # a round that settles something has none
    base = named_tensors(build_experiment(config).base.model)
    expected = {name: tensor.clone() for name, tensor in base.items()}
    apply_delta(expected, load_file(done / "adapter.safetensors"), 1.0)
    merged = load_file(done / "model.safetensors")
    moved = [name for name, tensor in base.items() if not (expected[name] == tensor).all()]
    for name in moved:
        assert (merged[name] - expected[name]).abs().max() < 1e-6 * (1 + merged[name].abs().max())
    return moved
