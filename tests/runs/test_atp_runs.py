"""Whole runs that learn how a network adapts to each batch: what is sent, what stays, what is refused."""

import copy
import json
from pathlib import Path

import pytest
import torch
from interrupted import Ended
from safetensors.torch import load_file
from small_runs import rows, tiny

from fed_lorac.adapters.adapting import RATES, rated
from fed_lorac.api.result import Run
from fed_lorac.client.shapes import one_after_another
from fed_lorac.errors import ConfigError, RunError
from fed_lorac.experiment.build import build_experiment, with_config
from fed_lorac.export import export_run, load_adapter
from fed_lorac.models.fingerprints import named_tensors
from fed_lorac.reporting.sizes import sizes
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run
from fed_lorac.simulation.plan import configs_of, sizes_of

SMALL: dict[str, object] = {"data__image_size": 16, "fleet__images": 25, "fleet__eval_images": 15}
ATP: dict[str, object] = {
    "adapter__method": "atp",
    "strategy__name": "fedavg",
    "batch_norm__mode": "frozen",
    "local__lr": 0.1,
    **SMALL,
}
FILES = ("adapter.safetensors", "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atp") / "run"
    run(tiny(**ATP, block_size=2), folder, Watch())
    return folder


def test_rates_alone_change_are_sent_and_billed(finished: Path) -> None:
    config = tiny(**ATP)
    base = build_experiment(config).base
    model, adapter = (load_file(finished / name) for name in reversed(FILES))
    assert adapter.keys() == {RATES} and adapter[RATES].abs().max() > 0
    assert torch.equal(model[RATES], adapter[RATES]) and len(adapter[RATES]) == len(rated(base.plain))
    assert all(torch.equal(model[name], tensor) for name, tensor in named_tensors(base.plain).items())
    found = rows(finished / "rounds.jsonl")
    sent = sizes("resnet8", "atp").frame_bytes
    assert all(row["uplink_frame_bytes"] == sent * 3 and row["aggregation_error"] < 1e-6 for row in found)
    whole = sum(p.numel() for p in base.plain.parameters())
    assert found[0]["full_uplink_message_bytes"] // 3 - 4 * whole < 600  # the rates are no part of it


def test_a_run_in_blocks_is_gone_on_with_byte_for_byte_by_any_workers(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny(**ATP, block_size=2), tmp_path, Ended(1))
    run(tiny(**ATP, block_size=2, run__workers=2, run__pool="threads"), tmp_path, Watch(), resume=True)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_rates_are_learned_side_by_side_and_to_rounding_what_cameras_learn_alone(
    finished: Path, tmp_path: Path
) -> None:
    assert one_after_another(build_experiment(tiny(**ATP, block_size=2))) is None
    run(tiny(**ATP, block_size=1), tmp_path, Watch())
    blocks, alone = (load_file(folder / "adapter.safetensors")[RATES] for folder in (finished, tmp_path))
    torch.testing.assert_close(blocks, alone, rtol=1e-3, atol=1e-5)


def test_the_base_scores_as_under_any_other_adapter(finished: Path, tmp_path: Path) -> None:
    run(tiny(batch_norm__mode="frozen", keep_base_scores="false", **SMALL), tmp_path, Watch())
    kinds = ("accuracy_source", "accuracy_zero_byte")
    ours, theirs = ([{k: row[k] for k in kinds} for row in rows(f / "rounds.jsonl")] for f in (finished, tmp_path))
    assert ours == theirs


@pytest.mark.parametrize(
    "settings",
    [
        {"strategy__name": "local-only"},
        {"strategy__name": "clustered", "adapter__atp__online": "true"},
        {"strategy__name": "merged", "codec__up": "int8", "batch_norm__mode": "local", "training_statistics": "fixed"},
    ],
    ids=lambda settings: str(settings["strategy__name"]),
)
def test_rates_go_by_any_strategy_that_takes_dense_deltas(settings: dict[str, object], tmp_path: Path) -> None:
    run(tiny(**ATP | settings), tmp_path, Watch())
    row = rows(tmp_path / "rounds.jsonl")[-1]
    assert not row["skipped"] and 0 <= row["accuracy"] <= 1


def test_rates_go_out_alone_and_back_onto_the_base(finished: Path) -> None:
    said = export_run(finished, "adapter")
    assert json.loads(said.metadata["settings"]) == {"batch_images": 20, "online": False}
    model = build_experiment(tiny(**ATP)).base.plain
    images = torch.randint(256, (30, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = Run(finished).model()
    mine = copy.deepcopy(model)
    load_adapter(mine, said.path)
    network.deployed.network = mine.eval()
    assert torch.equal(network(images), Run(finished).model()(images))
    with pytest.raises(RunError, match="adapts to each batch by gradients"):
        export_run(finished, "safetensors")


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({"batch_norm__mode": "local"}, 'batch_norm.mode = "frozen", as published'),
        ({"batch_norm__mode": "shared"}, 'batch_norm.mode = "frozen", as published'),
        ({"local__objective": "entropy"}, "must itself be learned with labels"),
        ({"strategy__name": "zeroth-order"}, "by forward passes alone"),
        ({"adapter__method": "norm-affine + atp"}, "Atp does neither"),
    ],
    ids=str,
)
def test_what_makes_no_sense_with_rates_is_refused_at_the_start(settings: dict[str, object], law: str) -> None:
    with pytest.raises(ConfigError, match=law):
        tiny(**ATP | settings)


def test_a_plan_weighs_rates_beside_others_over_one_base() -> None:
    config = tiny(batch_norm__mode="frozen", **SMALL)
    experiment = build_experiment(config)
    configs, left_out = configs_of(config, ("own", "atp", "norm-affine"))
    found = {one.method: one for one in sizes_of(experiment, configs) if not isinstance(one, str)}
    assert not left_out and found["atp"].uplink_frame_bytes == sizes("resnet8", "atp").frame_bytes
    assert found["norm-affine"].uplink_frame_bytes > found["atp"].uplink_frame_bytes
    with_rates = with_config(experiment, dict(configs)["atp"])
    assert with_rates.base.plain is experiment.base.model and with_rates.base.fingerprint == experiment.base.fingerprint
    assert with_config(with_rates, config).base.model is experiment.base.model
