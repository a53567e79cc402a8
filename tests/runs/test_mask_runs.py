"""Whole runs of mask: draws both ways, gone on with byte for byte, and merged into what a device gets."""

import json
import math
from pathlib import Path

import pytest
from cut_runs import check_cut_run_ends_alike, tensors_moved_by_the_adapter
from safetensors.torch import load_file
from small_runs import rows, tiny

from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.client.agreement import uplink_template
from fed_lorac.config import Config
from fed_lorac.experiment.build import build_experiment
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.reporting.plan import MethodSizes
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.simulation.plan import sizes_of

FILES = ("adapter.safetensors", "model.safetensors")


def drawn(**changes: object) -> Config:
    own = {"train_first_conv": False, "train_classifier": False, "strategy__name": "fedavg", "adapter__method": "mask"}
    codec = {"codec__up": "bernoulli", "codec__entropy_coding": True}
    less = {"fleet__images": 25, "fleet__eval_images": 20, "local__lr": 10.0}  # one step, of which draws are to be left
    return tiny(**{**own, **codec, **less, **changes})


def test_a_run_that_was_cut_ends_byte_for_byte_alike_and_its_model_is_the_base_with_the_delta(tmp_path: Path) -> None:
    check_cut_run_ends_alike(drawn(), tmp_path, FILES)
    assert len(tensors_moved_by_the_adapter(drawn(), tmp_path / "whole")) == 8  # convolutions but the first


def test_a_plan_weighs_draws_before_there_are_any() -> None:
    """A byte for five weights, as nothing is known yet of what an entropy code will leave."""
    config = drawn(codec__down="bernoulli")
    experiment = build_experiment(config)
    [found] = sizes_of(experiment, [("own", config)])
    assert isinstance(found, MethodSizes)
    payload = sum(math.ceil(math.prod(shape) / 5) for shape in uplink_template(experiment).values())
    assert found.uplink_frame_bytes == found.downlink_frame_bytes == payload + 19


@pytest.mark.slow
def test_so_does_one_of_draws_both_ways_whose_weights_are_the_bases_less_and_more(tmp_path: Path) -> None:
    config = drawn(codec__down="bernoulli")
    check_cut_run_ends_alike(config, tmp_path, FILES)
    base = named_tensors(build_experiment(config).base.model)
    expected = {name: tensor.clone() for name, tensor in base.items()}
    apply_delta(expected, load_file(tmp_path / "whole/adapter.safetensors"), 1.0)
    merged = load_file(tmp_path / "whole/model.safetensors")
    times = merged["layer1.0.conv1.weight"] / base["layer1.0.conv1.weight"]
    whole = 0.9 * (1 - times)  # draws that were folded, in units of W / (1 - dropped)
    assert (whole - whole.round()).abs().max() < 1e-4 and whole.any()
    assert all((merged[name] - tensor).abs().max() < 1e-6 for name, tensor in expected.items())


def test_a_run_bills_draws_as_they_are_coded(tmp_path: Path) -> None:
    config = drawn(run__rounds=1, codec__down="bernoulli")
    run(config, tmp_path / "run", Watch())
    [row] = rows(tmp_path / "run/rounds.jsonl")
    weights = sum(m.numel() for n, m in named_tensors(build_experiment(config).base.model).items() if m.ndim == 4)
    for way, cameras in (("uplink", 3), ("downlink", 4)):
        assert 0 < row[f"{way}_payload_bytes"] < cameras * weights / 8  # less than a bit a weight
    assert json.loads((tmp_path / "run/summary.json").read_text())["adapted_accuracy"] > 0
