"""Runs whose server chooses the layers: one round asks, its update tells, and the rounds after train those alone."""

import json
from pathlib import Path

import pytest
import torch
from interrupted import Ended, check_equal
from safetensors.torch import load_file
from small_runs import rows, tiny

import fed_lorac as fl
from fed_lorac.adapters.choice import choice_state
from fed_lorac.adapters.settled import Settled
from fed_lorac.client.agreement import frame_spec
from fed_lorac.client.state import GlobalModel, catch_up, encode_global_model, fold_updates, read_deltas
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.adapters import candidates, settled_on
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.server.frame_strategy import FrameStrategy
from fed_lorac.simulation.build_strategy import strategy_of
from fed_lorac.simulation.engines import run
from fed_lorac.simulation.plan import configs_of, sizes_of
from fed_lorac.wire.frame import encode, inspect
from fed_lorac.wire.updates import global_fingerprint

AUTO = {"adapter__layers": "auto", "adapter__budget_bytes": 4000}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chosen") / "run"
    run(tiny(run__rounds=3, **AUTO), out, Watch())
    return out


def test_the_first_round_asks_and_tells_and_trains_nothing(chosen: Path) -> None:
    first, *later = rows(chosen / "rounds.jsonl")
    layers = 8  # of resnet8's nine convolutions
    assert first["uplink_payload_bytes"] == first["cameras_counted"] * layers * 2
    assert first["uplink_frame_bytes"] == first["cameras_counted"] * (19 + layers * 2)  # no names: version 2
    assert first["downlink_frame_bytes"] == 4 * (19 + layers * 2)
    assert first["downlink_payload_bytes"] == 4 * layers * 2  # all four cameras are told
    assert 0 < len(first["layers_chosen"].split(", ")) < layers
    assert first["cameras_measured"] == 4 and first["aggregation_error"] is None
    for row in later:
        assert (row["layers_chosen"], row["needed_payload_bytes"]) == ("", 0)


def test_cameras_send_what_was_chosen_within_the_budget(chosen: Path) -> None:
    first, *later = rows(chosen / "rounds.jsonl")
    assert first["needed_payload_bytes"] <= AUTO["adapter__budget_bytes"]
    for row in later:
        assert row["uplink_payload_bytes"] == row["cameras_counted"] * first["needed_payload_bytes"]
    summary = json.loads((chosen / "summary.json").read_text())
    assert summary["layers_chosen"] == first["layers_chosen"].split(", ")
    changed = {name.rpartition(".")[0] for name in load_file(chosen / "adapter.safetensors")}
    assert changed == {*summary["layers_chosen"], "conv1", "fc"}
    assert list(fl.load_run(chosen).rounds["layers_chosen"]) == [first["layers_chosen"], "", ""]


def test_other_runs_have_no_such_columns(tmp_path: Path) -> None:
    run(tiny(run__rounds=1, adapter__layers="layer1.*"), tmp_path / "run", Watch())
    [row] = rows(tmp_path / "run" / "rounds.jsonl")
    assert "layers_chosen" not in row
    assert "layers_chosen" not in json.loads((tmp_path / "run" / "summary.json").read_text())


@pytest.mark.parametrize("after", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_is_interrupted_after_the_choice_goes_on_to_the_same_end(
    tmp_path: Path, chosen: Path, after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny(run__rounds=3, **AUTO), tmp_path / "cut", Ended(after))
    run(tiny(run__rounds=3, **AUTO), tmp_path / "cut", Ended(0), resume=True)
    check_equal(tmp_path / "cut", chosen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"adapter__method": "ffa-lora-c", "strategy__name": "fedavg"},
        {"adapter__method": "filter-atoms", "strategy__name": "fedavg", "adapter__budget_bytes": 3000},
        {"adapter__method": "aad", "strategy__name": "rotating-basis"},
        {"adapter__method": "lorae", "codec__up": "int8", "codec__down": "int4"},
        {"strategy__name": "factor-fedavg"},
        {"strategy__name": "flexlora", "adapter__rank": "1, 2"},
        {"strategy__name": "clustered"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_every_strategy_goes_on_from_the_choice(tmp_path: Path, settings: dict[str, str]) -> None:
    settings = {name: str(value) for name, value in settings.items()}
    run(tiny(run__rounds=3, **(AUTO | settings)), tmp_path / "run", Watch())
    first, *later = rows(tmp_path / "run" / "rounds.jsonl")
    assert all(not row["skipped"] and row["uplink_payload_bytes"] > 0 for row in later)
    assert all(row["uplink_payload_bytes"] <= 3 * first["needed_payload_bytes"] for row in later)


@pytest.mark.slow
def test_cameras_that_were_away_learn_of_the_choice_when_they_are_back(tmp_path: Path) -> None:
    """Some miss the choice and updates after it, and are sent what they lack, or the whole model, choice included."""
    away = {"fleet__devices": "limited", "availability": "0.5", "dropout": "0.3", "strategy__quorum": "0.1"}
    run(tiny(run__rounds=8, **AUTO, **away), tmp_path / "run", Watch())
    found = rows(tmp_path / "run" / "rounds.jsonl")
    assert sum(bool(row["layers_chosen"]) for row in found) == 1
    reasons = {reason for row in found for reason in row["reasons"]}
    assert reasons <= {"no reply", "dropped out"}


def test_a_choice_needs_cameras_that_send() -> None:
    for name in ("zero-byte", "local-only"):
        with pytest.raises(ConfigError, match="Layers are chosen by the server, of what cameras send"):
            tiny(strategy__name=name, **AUTO)


@pytest.mark.parametrize("inside", [False, True])
def test_where_no_layer_takes_bytes_of_its_own_none_is_chosen(inside: bool) -> None:
    """A subspace's dimensions are all layers'."""
    config = tiny(adapter__method="subspace", strategy__name="fedavg", ends_inside=inside, **AUTO)
    with pytest.raises(ConfigError, match="Layers are chosen where each takes bytes of its own"):
        strategy_of(build_experiment(config))


def test_a_budget_that_is_too_small_is_refused_before_the_first_round() -> None:
    config = tiny(adapter__layers="auto", adapter__budget_bytes=1000)
    with pytest.raises(ConfigError, match=r"got 1,000: with the smallest, .* are not the layer's"):
        strategy_of(build_experiment(config))


def test_a_plan_does_not_guess_what_a_server_will_choose() -> None:
    config = tiny(**AUTO)
    methods, left_out = configs_of(config, ("own", "lora-xs"))
    own, other = sizes_of(build_experiment(config), methods)
    assert not left_out and own.startswith("own: its layers are chosen in the run, for 4,000 bytes")
    assert not isinstance(other, str)


def test_a_budget_is_for_layers_that_are_chosen() -> None:
    with pytest.raises(ConfigError, match=r"budget_bytes has no meaning under adapter\.layers"):
        tiny(adapter__budget_bytes=4000)
    with pytest.raises(ConfigError, match=r"layers has no meaning under adapter\.method"):
        tiny(adapter__method="norm-affine", adapter__layers="auto", strategy__name="fedavg")


@pytest.mark.parametrize("strategy", ["merged", "factor-fedavg"])
def test_the_choice_updates_after_it_and_a_whole_model_go_without_names(strategy: str) -> None:
    experiment = build_experiment(tiny(strategy__name=strategy, **AUTO))
    layers = candidates(experiment)
    assert candidates(settled_on(experiment, Settled(layers[:2]))) == layers
    known, model = frame_spec(experiment).templates, GlobalModel()
    choice = choice_state(layers, layers[2:4])
    frames = [(1, encode(choice, dtype="fp16", base=model.fingerprint(experiment.base.fingerprint), templates=known))]
    settled = settled_on(experiment, Settled(layers[2:4]))
    spec = frame_spec(settled)
    server = strategy_of(settled)
    assert isinstance(server, FrameStrategy)
    for number in (2, 3):
        state = {name: torch.full(shape, 0.1 * number) for name, shape in spec.template.items()}
        update = server.strategy.propose(server.state, [server.state.client_delta(0, 1.0, state)]).update
        base = global_fingerprint(experiment.base.fingerprint, number - 1)
        frames.append((number, encode(update, dtype="fp32", base=base, templates=spec.templates)))
    whole = encode_global_model(experiment, model := fold_updates(experiment, model, frames))
    for frame, templates in ((frames[0][1], known), (frames[1][1], spec.templates), (whole, known)):
        assert inspect(frame).shapes is None  # it says none
        assert 0 < len(frame) - inspect(frame, templates=templates).payload_bytes <= 32
    at_once = catch_up(experiment, GlobalModel(), (3, whole), [])
    assert at_once.settled.layers == model.settled.layers == layers[2:4]
    for ours, theirs in ((at_once.tensors, model.tensors), (at_once.factors, model.factors)):
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [round for round, _ in read_deltas(settled, frames)] == [2, 3]
