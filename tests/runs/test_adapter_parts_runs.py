"""Runs of adapters made of parts, by their names in a config."""

import math
from pathlib import Path

import pytest
from interrupted import Ended, check_equal
from safetensors.torch import load_file
from small_runs import rows, tiny

from fed_lorac.adapters.deltas import fold
from fed_lorac.adapters.lora_c import LoraC
from fed_lorac.adapters.norm_affine import NormAffine
from fed_lorac.adapters.parts import Parts
from fed_lorac.client.agreement import uplink_template
from fed_lorac.config import Config, load_config
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.sizes import sizes
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.engines import run

BOTH = {"adapter__method": "norm-affine + lora-c", "adapter.parts.lr_factors": "1, 0.1"}


def test_each_part_has_its_own_table_and_what_stands_in_view_is_for_all_that_have_it() -> None:
    config = tiny(**BOTH, adapter__rank=3, **{"adapter.norm-affine.train_first_conv": "false", "rank_mode": "r"})
    norms = NormAffine(train_first_conv=False)
    assert config.adapter.build("method") == Parts((norms, LoraC(rank=3, rank_mode="r")), (1.0, 0.1))
    assert Config.from_flat(config.to_flat()) == config == load_config(config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["adapter.method=norm-affine + lora-d"], "Did you mean 'lora-c'"),
        (["adapter.method=norm-affine + lora-c", "strategy.name=fedavg"], "must be linear"),
        (["adapter.method=norm-affine + lora-c", "train_classifier=false"], "Write its section too"),
        (["adapter.method=norm-affine + lora-c", "adapter.aad.rank_mode=r"], r"\[adapter\.aad\] is for"),
        (["adapter.parts.lr_factors=2"], r"\[adapter\.parts\] is for adapter\.method made of parts"),
        (["adapter.method=norm-affine + lora-c", "adapter.parts.lr_factors=1,2,3"], "2 parts and lr_factors = 1, 2, 3"),
        (["adapter.method=norm-affine + linear-probe", "adapter.rank=3"], r"adapter\.rank has no meaning"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(None, settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("parts") / "run"
    run(tiny(**BOTH), out, Watch())
    return out


def test_cameras_send_every_part_and_the_adapter_is_what_the_model_gained(whole: Path) -> None:
    norms, factors = (sizes("resnet8", name, 2) for name in ("norm-affine", "lora-c"))
    both = sizes("resnet8", "norm-affine + lora-c", 2)
    ends = 16 * 3 * 9 + 64 * 10  # counted once
    assert both.trainable_parameters == norms.trainable_parameters + factors.trainable_parameters - ends
    experiment = build_experiment(tiny(**BOTH))
    numbers = sum(math.prod(shape) for shape in uplink_template(experiment).values())
    for row in rows(whole / "rounds.jsonl"):
        assert row["uplink_payload_bytes"] == row["cameras_counted"] * 4 * numbers
    weights = {name: tensor.clone() for name, tensor in experiment.base.model.state_dict().items()}
    fold(weights, load_file(whole / "adapter.safetensors"))
    for name, tensor in load_file(whole / "model.safetensors").items():
        assert (weights[name] - tensor).abs().max() < 1e-5, name


def test_an_interrupted_run_of_parts_goes_on_to_the_same_end(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tiny(**BOTH), tmp_path / "cut", Ended(1))
    run(tiny(**BOTH), tmp_path / "cut", Ended(0), resume=True)
    check_equal(tmp_path / "cut", whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"adapter__method": "norm-affine + ffa-lora-c", "strategy__name": "fedavg"},
        {"adapter__method": "norm-affine + filter-atoms", "strategy__name": "fedavg"},
        {"adapter__method": "norm-affine + lora-c", "strategy__name": "rotating-basis"},
        {"adapter__method": "norm-affine + lora-c", "strategy__name": "factor-fedavg"},
        {"adapter__method": "norm-affine + lora-c", "strategy__name": "flexlora", "adapter__rank": "1, 2"},
        {"adapter__method": "norm-affine + lora-c", "codec__up": "int8", "codec__down": "int4"},
        {"adapter__method": "norm-affine + lora-c", "adapter__layers": "auto", "adapter__budget_bytes": 5000},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_parts_go_with_every_strategy_that_takes_them(tmp_path: Path, settings: dict[str, object]) -> None:
    run(tiny(run__rounds=3, **settings), tmp_path / "run", Watch())
    assert all(not row["skipped"] for row in rows(tmp_path / "run" / "rounds.jsonl"))


def test_side_by_side_and_alone_agree(tmp_path: Path) -> None:
    """To rounding, with a learning rate for each part."""
    found = []
    for size in (1, 3):
        out = tmp_path / str(size)
        run(tiny(**BOTH, run__rounds=1, block_size=size), out, Watch())
        found.append(load_file(out / "model.safetensors"))
    for name, tensor in found[0].items():
        assert (found[1][name] - tensor).abs().max() < 1e-4, name
