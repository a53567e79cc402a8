"""Whole runs on the local engine: what is in a run's folder, and that its parts agree with one another."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import rows, tiny

from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.api.result import Run, load_run
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.reporting.tables import show_run
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.training.accuracy import accuracy, reestimate_statistics


def finished(folder: Path, config: Config) -> dict[str, Any]:
    run(config, folder, Watch())
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Config, dict[str, Any]]]:
    """One LoRA-C run that every test of its parts shares."""
    folder, config = tmp_path_factory.mktemp("runs") / "lora-c", tiny()
    yield folder, config, finished(folder, config)


Done = tuple[Path, Config, dict[str, Any]]


def test_a_run_leaves_every_file_and_no_other(done: Done) -> None:
    folder, config, _ = done
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter.safetensors",
        "cameras.jsonl",
        "cameras.safetensors",
        "checkpoints",
        "config.toml",
        "model.safetensors",
        "rounds.jsonl",
        "summary.json",
    ]
    from fed_lorac.config import load_config

    assert load_config(folder / "config.toml") == config


def test_the_base_and_the_adapter_make_the_model(done: Done) -> None:
    folder, config, _ = done
    base = build_experiment(config).base.model
    tensors = {name: tensor.clone() for name, tensor in named_tensors(base).items()}
    apply_delta(tensors, load_file(folder / "adapter.safetensors"), 1.0)
    model = load_file(folder / "model.safetensors")
    assert model.keys() == base.state_dict().keys()
    assert all(torch.allclose(model[name], tensor, atol=1e-5) for name, tensor in tensors.items())
    assert any(not torch.equal(model[name], tensor) for name, tensor in named_tensors(base).items())


def test_the_model_keeps_the_bases_statistics(done: Done) -> None:
    folder, config, _ = done
    model, base = load_file(folder / "model.safetensors"), build_experiment(config).base.model.state_dict()
    moved = [name for name, t in base.items() if "running" in name and not torch.equal(t, model[name])]
    assert not moved


def test_the_adapted_accuracy_is_that_of_the_model_under_each_cameras_own_statistics(done: Done) -> None:
    folder, config, summary = done
    experiment, found, clean = build_experiment(config), [], []
    model = experiment.base.model
    before = {name: t.clone() for name, t in model.state_dict().items()}
    try:
        for camera in experiment.fleet.cameras:
            model.load_state_dict(load_file(folder / "model.safetensors"))
            view, fair = camera_data(experiment.data, camera, config.run.seed), experiment.clear_images(camera.id)
            assert fair is not None
            reestimate_statistics(model, fair.train)
            clean.append(accuracy(model, fair.test, fair.test_labels))
            reestimate_statistics(model, view.train)
            found.append(accuracy(model, view.test, view.test_labels))
            kept = load_file(folder / "cameras.safetensors")
            for name, tensor in model.state_dict().items():
                if "running" in name:
                    assert torch.allclose(kept[f"camera-{camera.id}.{name}"], tensor, atol=1e-4)
    finally:
        model.load_state_dict(before)
    assert summary["adapted_accuracy"] == pytest.approx(sum(found) / len(found), abs=0.02)
    assert summary["clean_accuracy"]["adapted"] == pytest.approx(sum(clean) / len(clean), abs=0.02)
    assert rows(folder / "rounds.jsonl")[-1]["accuracy"] == summary["adapted_accuracy"]
    last = [row for row in rows(folder / "cameras.jsonl") if row["round"] == summary["rounds"]]
    means = {"accuracy": "adapted", "accuracy_source": "source", "accuracy_zero_byte": "zero_byte"}
    for column, arm in means.items():
        assert sum(row[column] for row in last) / len(last) == pytest.approx(summary[f"{arm}_accuracy"], abs=1e-12)


def test_the_summary_adds_up_what_the_ledger_says(done: Done) -> None:
    folder, config, summary = done
    by_round, by_camera = rows(folder / "rounds.jsonl"), rows(folder / "cameras.jsonl")
    for direction in ("uplink", "downlink"):
        for what in ("payload", "frame", "message"):
            column = f"{direction}_{what}_bytes"
            for row in by_round:
                assert row[column] == sum(c[column] for c in by_camera if c["round"] == row["round"])
    ours = sum(row["uplink_frame_bytes"] + row["downlink_frame_bytes"] for row in by_round)
    full = sum(row["full_uplink_frame_bytes"] + row["full_downlink_frame_bytes"] for row in by_round)
    assert (summary["total_bytes"], summary["full_total_bytes"]) == (ours, full)
    assert len(by_camera) == config.run.rounds * config.fleet.cameras


def test_every_update_is_billed_once_to_every_camera_and_the_last_one_too(done: Done) -> None:
    folder, config, _ = done
    for number in range(1, config.run.rounds + 1):
        sent = [row for row in rows(folder / "cameras.jsonl") if row["round"] == number]
        assert len({row["downlink_frame_bytes"] for row in sent}) == 1
        assert sent[0]["downlink_frame_bytes"] > 0
        assert sum(row["status"] == "idle" for row in sent) == config.fleet.cameras - config.fleet.per_round
        assert all(row["uplink_frame_bytes"] == 0 for row in sent if row["status"] == "idle")
    for row in rows(folder / "cameras.jsonl"):
        for way in ("uplink", "downlink"):
            assert row[f"{way}_payload_bytes"] <= row[f"{way}_frame_bytes"] <= row[f"{way}_message_bytes"]


def test_the_same_config_gives_the_same_bytes(done: Done, tmp_path: Path) -> None:
    folder, config, _ = done
    finished(tmp_path / "again", config)
    for file in ("adapter.safetensors", "model.safetensors", "cameras.safetensors", "cameras.jsonl", "config.toml"):
        assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    assert rows(folder / "rounds.jsonl", "seconds") == rows(tmp_path / "again" / "rounds.jsonl", "seconds")


def test_another_seed_gives_another_adapter(done: Done, tmp_path: Path) -> None:
    finished(tmp_path / "other", tiny(run__seed=1))
    assert (done[0] / "adapter.safetensors").read_bytes() != (tmp_path / "other" / "adapter.safetensors").read_bytes()


def test_a_folder_that_holds_a_run_is_not_overwritten(done: Done) -> None:
    before = (done[0] / "rounds.jsonl").read_bytes()
    with pytest.raises(RunError, match="already holds"):
        run(done[1], done[0], Watch())
    assert (done[0] / "rounds.jsonl").read_bytes() == before


@pytest.mark.parametrize("mode", ["local", "shared"])
def test_the_bytes_given_for_full_fine_tuning_are_those_it_really_sends(mode: str, tmp_path: Path) -> None:
    settings = {"batch_norm__mode": mode}
    finished(tmp_path / "ours", tiny(**settings))
    finished(tmp_path / "full", tiny(adapter__method="full", strategy__name="fedavg", local__lr=0.02, **settings))
    for ours, full in zip(rows(tmp_path / "ours/rounds.jsonl"), rows(tmp_path / "full/rounds.jsonl"), strict=True):
        assert ours["full_uplink_message_bytes"] == full["uplink_message_bytes"] > ours["uplink_message_bytes"]
        assert ours["full_downlink_message_bytes"] == full["downlink_message_bytes"] > ours["downlink_message_bytes"]


def test_shared_statistics_are_billed_and_local_ones_cost_nothing(done: Done, tmp_path: Path) -> None:
    finished(tmp_path / "shared", tiny(batch_norm__mode="shared"))
    values = sum(
        t.numel() for name, t in named_tensors(build_experiment(done[1]).base.model).items() if "running" in name
    )
    local, shared = (rows(folder / "rounds.jsonl")[0] for folder in (done[0], tmp_path / "shared"))
    assert shared["uplink_payload_bytes"] - local["uplink_payload_bytes"] == 4 * values * 3
    assert shared["downlink_payload_bytes"] - local["downlink_payload_bytes"] == 4 * values * 4
    model, base = load_file(tmp_path / "shared/model.safetensors"), build_experiment(done[1]).base.model.state_dict()
    assert not torch.equal(model["bn1.running_mean"], base["bn1.running_mean"])


def test_frozen_statistics_stay_the_bases_in_training(tmp_path: Path) -> None:
    config = tiny(batch_norm__mode="frozen", run__rounds=1)
    summary = finished(tmp_path / "frozen", config)
    assert load_file(tmp_path / "frozen/cameras.safetensors") == {}
    assert summary["adapted_accuracy"] is not None


@pytest.mark.parametrize(
    ("changes", "exact"),
    [
        ({"downlink": "dense"}, True),
        ({"downlink": "stack"}, True),
        ({"strategy__name": "factor-fedavg"}, False),
    ],
)
def test_the_ledger_tells_exact_averages_from_others(changes: dict[str, object], exact: bool, tmp_path: Path) -> None:
    finished(tmp_path / "run", tiny(local__epochs=3, local__batch_size=10, **changes))
    errors = [row["aggregation_error"] for row in rows(tmp_path / "run/rounds.jsonl")]
    assert all((error < 1e-6) == exact for error in errors), errors
    with safe_open(tmp_path / "run/adapter.safetensors", framework="pt") as file:
        assert file.metadata()["folded_round"] == "2"


def test_half_precision_halves_the_payload(done: Done, tmp_path: Path) -> None:
    finished(tmp_path / "half", tiny(codec__up="bf16", codec__down="fp16"))
    full, half = (rows(folder / "rounds.jsonl")[0] for folder in (done[0], tmp_path / "half"))
    for way in ("uplink", "downlink"):
        assert 2 * half[f"{way}_payload_bytes"] == full[f"{way}_payload_bytes"]


def test_a_base_with_no_batch_norm_has_nothing_to_adapt_for_free(tmp_path: Path) -> None:
    summary = finished(tmp_path / "group", tiny(norm="group", run__rounds=1))
    assert summary["zero_byte_accuracy"] is None and summary["base"]["batch_norm"] is False
    assert rows(tmp_path / "group/rounds.jsonl")[0]["accuracy_zero_byte"] is None
    console = Console(width=200, record=True, file=io.StringIO())
    show_run(console, summary)
    assert console.export_text().count("no batch norm") == 2 + len(summary["per_corruption"])
    assert "zero-byte has no batch norm" in repr(Run(tmp_path / "group"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strategy__name": "zero-byte"}, "a camera adapts batch norm alone; this network, a SqueezeNet, has none"),
        ({"batch_norm__mode": "shared"}, 'Set batch_norm.mode = "local"'),
    ],
)
def test_what_needs_batch_norm_is_refused_without_it(changes: dict[str, object], words: str, tmp_path: Path) -> None:
    config = tiny(model__name="squeezenet1_1", width=None, **changes)
    with pytest.raises(ConfigError, match=words):
        build_experiment(config)


def test_rounds_between_evaluations_are_not_measured_and_the_last_one_is(tmp_path: Path) -> None:
    finished(tmp_path / "sparse", tiny(run__rounds=3, run__evaluate_every=2))
    measured = [row["accuracy"] is not None for row in rows(tmp_path / "sparse/rounds.jsonl")]
    assert measured == [False, True, True]


def test_shared_variances_that_an_update_takes_below_zero_are_zero(tmp_path: Path) -> None:
    """Adam's steps are of one length, whatever the size of what they move."""
    config = tiny(
        **{"batch_norm__mode": "shared", "strategy__name": "fedavg", "adapter__method": "norm-affine"},
        **{"strategy__server_optimizer": "adam", "codec__down": "int4", "run__rounds": 3},
    )
    finished(tmp_path, config)
    model, base = load_file(tmp_path / "model.safetensors"), named_tensors(build_experiment(config).base.model)
    variances = {name: tensor for name, tensor in model.items() if name.endswith("running_var")}
    assert min(float(tensor.min()) for tensor in variances.values()) == 0
    for name, added in load_file(tmp_path / "adapter.safetensors").items():
        torch.testing.assert_close(base[name] + added, model[name], atol=1e-5, rtol=1e-5)
    assert load_run(tmp_path).model() is not None
