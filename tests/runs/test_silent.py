"""Laws of "local-only" and "zero-byte": what a fleet reaches with nothing on the air, and what it is compared with."""

import copy
import json
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import called
from flwr.app import ArrayRecord, ConfigRecord
from interrupted import Ended, check_equal
from safetensors.torch import load_file
from small_runs import rows, tiny
from torch import Tensor

from fed_lorac.adapters.deltas import apply_delta
from fed_lorac.client.state import ClientState
from fed_lorac.config import Config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.experiment.experiment import Experiment, drawn_from
from fed_lorac.fleet.camera_data import camera_data
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import task_identity
from fed_lorac.seeds import stream
from fed_lorac.server.rules import FleetRules
from fed_lorac.server.silent_fleet import SilentFleet
from fed_lorac.simulation.engines import Fleet, run
from fed_lorac.training.loop import train
from fed_lorac.training.recipe import Task
from fed_lorac.wire.frame import decode
from fed_lorac.wire.updates import personal_fingerprint
from strategies.local_only import LocalOnly

SILENT = ("local-only", "zero-byte")
ADAPTERS = ("lora-c", "full", "norm-affine", "aad", "filter-atoms")
OFTEN_AWAY = (
    ("fleet__devices", "limited"), ("availability", 0.6), ("strategy__quorum", 0.0), ("run__rounds", 3),
    ("checkpoint_every", 1)
)  # fmt: skip
EVERYONE = {"fleet__cameras": 3, "fleet__per_round": 3, "block_size": 1}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(strategy, more settings as pairs) -> the finished run's folder."""

    @cache
    def found(strategy: str, *changes: tuple[str, object]) -> Path:
        folder = tmp_path_factory.mktemp("silent") / "run"
        run(tiny(strategy__name=strategy, **dict(changes)), folder, Watch())
        return folder

    return found


def told_by(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


# ---- Nothing is sent ----


@pytest.mark.parametrize("strategy", SILENT)
def test_nothing_is_billed_up_or_down(run_of: Any, strategy: str):
    folder = run_of(strategy)
    for name in ("rounds", "cameras"):
        for row in rows(folder / f"{name}.jsonl"):
            assert {v for k, v in row.items() if k.startswith(("uplink", "downlink", "air"))} == {0}
    summary = told_by(folder)
    assert summary["total_bytes"] == 0 and not any(days["adapter"] for days in summary["days"].values())
    assert load_file(folder / "adapter.safetensors") == {}
    base = build_experiment(tiny(strategy__name=strategy)).base.model.state_dict()
    merged = load_file(folder / "model.safetensors")
    assert merged.keys() == base.keys() and all(torch.equal(merged[name], base[name]) for name in base)


@pytest.mark.parametrize("strategy", SILENT)
def test_full_fine_tuning_is_billed_as_beside_any_other_method(run_of: Any, strategy: str):
    """Round by round, cameras that were away and catch up too."""
    silent, merged = (rows(run_of(name, *OFTEN_AWAY) / "rounds.jsonl") for name in (strategy, "merged"))
    columns = ("full_uplink_message_bytes", "full_downlink_message_bytes")
    assert [[row[c] for c in columns] for row in silent] == [[row[c] for c in columns] for row in merged]
    assert all(row[columns[1]] > 0 for row in silent)


@pytest.mark.parametrize("strategy", SILENT)
def test_it_goes_on_after_an_interruption_to_the_same_end(tmp_path: Path, run_of: Any, strategy: str):
    config = tiny(strategy__name=strategy, **dict(OFTEN_AWAY))
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended(2))
    run(config, tmp_path / "cut", Watch(), resume=True)
    check_equal(tmp_path / "cut", run_of(strategy, *OFTEN_AWAY))


# ---- Local-only ----


def by_hand(experiment: Experiment, camera: int, rounds: int) -> dict[str, Tensor]:
    """A camera's adapter, attached once and trained round after round; no message, no frame, no statistics between."""
    adapter, model = experiment.adapters[experiment.place(camera)], copy.deepcopy(experiment.base.model)
    adapter.attach(model, drawn_from(experiment, 0))
    view = camera_data(experiment.data, experiment.fleet.cameras[camera], experiment.plan.seed)
    for number in range(1, rounds + 1):
        model.train()
        steps = experiment.plan.steps_on(len(view.train))
        rng = stream(experiment.plan.seed, "camera", camera, "round", number)
        train([model], [Task(view.train, view.train_labels, steps, rng)], recipe=experiment.plan.recipe_in(number))
    state = adapter.read(model)
    change = adapter.to_delta(experiment.base.model, drawn_from(experiment, 0))(state)
    weights = {name: torch.zeros_like(tensor) for name, tensor in named_tensors(experiment.base.model).items()}
    apply_delta(weights, change, adapter.scale)
    return weights


def personal_delta(folder: Path, camera: int) -> dict[str, Tensor]:
    """What a camera's network has beside the base, dense, out of the run's files."""
    found = load_file(folder / "cameras.safetensors")
    prefix = f"own-{int(found[f'own.camera-{camera}'])}."
    merged = load_file(folder / "model.safetensors")
    weights = {name: torch.zeros_like(tensor) for name, tensor in merged.items() if tensor.is_floating_point()}
    apply_delta(weights, {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}, 1.0)
    return weights


@pytest.mark.slow
@pytest.mark.parametrize("method", ADAPTERS)
def test_a_second_turn_begins_where_the_first_ended(run_of: Any, method: str):
    folder = run_of("local-only", ("adapter__method", method), *EVERYONE.items())
    experiment = build_experiment(tiny(strategy__name="local-only", adapter__method=method, **EVERYONE))
    for camera in (0, 2):
        found, expected = personal_delta(folder, camera), by_hand(experiment, camera, rounds=2)
        moved = [name for name, change in expected.items() if change.any()]
        assert moved and all(not found[name].any() for name in found.keys() - set(moved))
        for name in moved:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    once = by_hand(experiment, 0, rounds=1)
    assert any(not torch.allclose(once[name], personal_delta(folder, 0)[name], atol=1e-5) for name in once)


def kept_by(config: Config, cameras: tuple[int, ...]) -> dict[int, bytes]:
    """What each of these cameras has of its own after two rounds in a fleet of these alone."""
    with task_identity(), closing(Fleet(config)) as fleet:
        strategy = SilentFleet(LocalOnly(), FleetRules(roster={1000 + camera: camera for camera in cameras}))
        for number in (1, 2):
            nothing = ArrayRecord()
            asked = strategy.configure_train(number, nothing, ConfigRecord(), fleet.grid)
            strategy.aggregate_train(number, fleet.grid.send_and_receive(asked))
            told = strategy.configure_evaluate(number, nothing, ConfigRecord({"measure": True}), fleet.grid)
            strategy.aggregate_evaluate(number, fleet.grid.send_and_receive(told))
        return {camera: ClientState.read(fleet.states()[1000 + camera]).personal_frame for camera in cameras}


@pytest.mark.parametrize("method", ["lora-c", "full"])
def test_cameras_do_not_influence_one_another(method: str):
    config = tiny(strategy__name="local-only", adapter__method=method, **EVERYONE)
    together, alone = kept_by(config, (0, 1, 2)), kept_by(config, (0,))
    assert together[0] == alone[0] != together[1]


def test_side_by_side_or_alone_they_learn_the_same():
    alone, together = (
        kept_by(tiny(strategy__name="local-only", **EVERYONE | {"block_size": size}), (0, 1, 2)) for size in (1, 3)
    )
    base = personal_fingerprint(build_experiment(tiny(strategy__name="local-only", **EVERYONE)).base.fingerprint)
    for camera, frame in alone.items():
        one, other = decode(frame, base=base), decode(together[camera], base=base)
        assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_cameras_of_unequal_rank_each_keep_their_own():
    config = tiny(strategy__name="local-only", adapter__rank="1, 3", rank_mode="r", **EVERYONE)
    base = personal_fingerprint(build_experiment(config).base.fingerprint)
    for camera, frame in kept_by(config, (0, 1, 2)).items():
        state = decode(frame, base=base)
        assert {A.shape[0] for name, A in state.items() if name.endswith(".A")} == {(1, 3, 1)[camera]}


def test_a_turn_that_did_not_come_off_leaves_the_adapter_as_it_was(tmp_path: Path):
    """Where every reply would be lost no camera trains; such rounds are skipped, and no update is counted."""
    run(tiny(strategy__name="local-only", fleet__devices="limited", dropout=0.999), tmp_path / "run", Watch())
    assert not [name for name in load_file(tmp_path / "run" / "cameras.safetensors") if name.startswith("own")]
    found = rows(tmp_path / "run" / "rounds.jsonl")
    assert [(row["skipped"], row["reasons"]) for row in found] == [(True, {"dropped out": 3})] * 2
    asked = {row["full_downlink_message_bytes"] for row in found}
    assert len(asked) == 1 and asked.pop() < 3 * 1000  # three questions a round


def test_a_round_lasts_as_long_as_the_slowest_turn(tmp_path: Path):
    config = tiny(strategy__name="local-only", fleet__devices="limited", image_time_s=0.1, speeds="1, 2", **EVERYONE)
    run(config, tmp_path / "run", Watch())
    assert [row["round_time_s"] for row in rows(tmp_path / "run" / "rounds.jsonl")] == pytest.approx([5.0, 5.0])


# ---- Zero-byte ----


def test_adapted_is_the_zero_byte_accuracy_of_the_base(run_of: Any):
    summary = told_by(run_of("zero-byte"))
    assert summary["adapted_accuracy"] == summary["zero_byte_accuracy"] != summary["source_accuracy"]
    assert all(means["adapted"] == means["zero_byte"] for means in summary["per_corruption"].values())


def test_so_it_is_round_by_round_where_weather_and_windows_move(run_of: Any):
    changes = {"fleet__schedule": "front", "window": 25, "run__rounds": 3}
    found = rows(run_of("zero-byte", *changes.items()) / "rounds.jsonl")
    assert all(row["accuracy"] == row["accuracy_zero_byte"] is not None for row in found)


class Phases(Watch):
    """How many messages each phase waits for."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int]] = []

    def phase(self, what: str, total: int) -> None:
        self.found.append((what, total))


def test_no_camera_is_asked_to_train(tmp_path: Path):
    watch = Phases()
    run(tiny(strategy__name="zero-byte", keep_base_scores=False), tmp_path / "run", watch)
    assert watch.found == [("base", 4), *[("train", 0), ("evaluate", 4)] * 2]
    found = rows(tmp_path / "run" / "cameras.jsonl")
    assert {row["train_loss"] for row in found} == {None} and {row["num_examples"] for row in found} == {0}
    assert [row["round_time_s"] for row in rows(tmp_path / "run" / "rounds.jsonl")] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_norm__mode": "frozen"}, r'batch_norm\.mode = "frozen".*Set batch_norm\.mode = "local"'),
        ({"batch_norm__mode": "shared"}, r'batch_norm\.mode = "shared".*Set batch_norm\.mode = "local"'),
        ({"norm": "group"}, r'norm = "group" in \[model\.resnet8\].*Set norm = "batch"'),
        ({"codec__error_feedback": "true", "codec__up": "int8"}, "they send none"),
    ],
)
def test_zero_byte_without_local_batch_norm_makes_no_sense(changes: dict[str, object], words: str):
    with pytest.raises(ConfigError, match=words):
        tiny(strategy__name="zero-byte", **changes)


@pytest.mark.parametrize("changes", [{"batch_norm__mode": "shared"}, {"codec__error_feedback": "true"}])
def test_local_only_shares_and_sends_nothing(changes: dict[str, object]):
    with pytest.raises(ConfigError, match="local-only"):
        tiny(strategy__name="local-only", codec__up="int8", **changes)


@pytest.mark.parametrize("changes", [{"batch_norm__mode": "frozen"}, {"norm": "group"}])
def test_local_only_takes_any_normalisation(tmp_path: Path, changes: dict[str, object]):
    run(tiny(strategy__name="local-only", run__rounds=1, **changes), tmp_path / "run", Watch())
    found = load_file(tmp_path / "run" / "cameras.safetensors")
    assert len([name for name in found if name.startswith("own.camera-")]) == 3  # as many as were drawn
    assert not [name for name in found if name.startswith("camera-")]


# ---- What a reader sees ----


def test_runs_compare_by_what_they_are(
    run_of: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Full fine-tuning is that which is averaged: not that of each camera for itself, nor an unused setting."""
    alone = run_of("local-only", ("adapter__method", "full"))
    zero = run_of("zero-byte", ("adapter__method", "full"))
    full = run_of("fedavg", ("adapter__method", "full"))
    assert called(monkeypatch, "compare", str(zero), str(alone), str(full)) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in _table(capsys.readouterr().out)]
    named = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}
    assert named.keys() == {
        "source", "local batch norm, nothing sent", "zero-byte", "full fine-tuning, local-only", "full fine-tuning"
    }  # fmt: skip
    assert {named[name]["bytes up + down"] for name in ("zero-byte", "full fine-tuning, local-only")} == {"0"}
    assert named["zero-byte"]["fleet mean"] == named["local batch norm, nothing sent"]["fleet mean"]
    gained = told_by(full)["adapted_accuracy"] > told_by(full)["zero_byte_accuracy"]
    assert named["full fine-tuning"]["gain recovered"] == ("100 %" if gained else "")


def _table(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_silent_round_counts_who_was_drawn_and_has_no_mean_to_be_off(run_of: Any):
    for strategy in SILENT:
        for row in rows(run_of(strategy) / "rounds.jsonl"):
            assert row["aggregation_error"] is None and row["cameras_counted"] == 3 and not row["skipped"]
