"""Laws of codecs in whole runs: finite results, bytes by formula up and down, the same bytes whoever works."""

import json
import math
from itertools import product
from pathlib import Path

import pytest
import torch
from frames import formula_bytes
from safetensors.torch import load_file
from small_runs import rows, tiny

from fed_lorac.client.agreement import frame_spec, uplink_template
from fed_lorac.experiment.build import build_experiment
from fed_lorac.reporting.watch import Watch
from fed_lorac.simulation.build_strategy import full_messages
from fed_lorac.simulation.engines import run
from fed_lorac.wire.codecs.codecs import CODECS
from fed_lorac.wire.frame import inspect

METHODS = {
    "lora-c": {},
    "mask": {
        "adapter__method": "mask",
        "strategy__name": "fedavg",
        "train_first_conv": False,
        "train_classifier": False,
    },
    "full": {"adapter__method": "full", "strategy__name": "fedavg", "local__lr": 0.02},
}
SHARE: dict[str, dict[str, object]] = {"topk": {"codec__topk__share": 0.1}}


# Each codec on thin factors, or on probabilities where it is for such; on full fine-tuning's tensors the one that
# rounds and the one that leaves out.
WHOLE = [("fp32", "full"), ("int4", "full"), ("topk", "full")]
NUMBERS = [dtype for dtype, codec in CODECS.items() if not codec.of_probabilities]
PAIRS = [(dtype, "lora-c" if dtype in NUMBERS else "mask") for dtype in CODECS] + [
    pair if pair in WHOLE else pytest.param(*pair, marks=pytest.mark.slow) for pair in product(NUMBERS, ["full"])
]


@pytest.mark.parametrize(("dtype", "method"), PAIRS)
def test_a_run_ends_finite_and_its_ledger_bills_the_formula(dtype: str, method: str, tmp_path: Path) -> None:
    config = tiny(run__rounds=1, codec__up=dtype, codec__down=dtype, **SHARE.get(dtype, {}), **METHODS[method])
    run(config, tmp_path / "run", Watch())
    found = json.loads((tmp_path / "run/summary.json").read_text())
    assert math.isfinite(found["adapted_accuracy"]) and found["adapted_accuracy"] > 0
    assert all(t.isfinite().all() for t in load_file(tmp_path / "run/model.safetensors").values())
    known = frame_spec(build_experiment(config))
    up = formula_bytes(dtype, known.template, 0.1)
    for row in rows(tmp_path / "run/rounds.jsonl"):
        assert row["cameras_counted"] == 3
        assert row["uplink_payload_bytes"] == 3 * up
        frame = (tmp_path / f"run/checkpoints/update-{row['round']:06d}.frame").read_bytes()
        update = inspect(frame, templates=known.templates)
        assert update.shapes is not None and len(frame) - update.payload_bytes <= 32
        assert update.dtype == dtype
        assert row["downlink_payload_bytes"] == 4 * formula_bytes(dtype, update.shapes, 0.1)
        assert row["downlink_frame_bytes"] == 4 * update.frame_bytes


@pytest.mark.parametrize(("up", "down"), [("drive", "fp16"), ("topk", "int8")])
def test_up_and_down_are_chosen_apart(up: str, down: str, tmp_path: Path) -> None:
    config = tiny(run__rounds=1, codec__up=up, codec__down=down)
    run(config, tmp_path / "run", Watch())
    update = inspect((tmp_path / "run/checkpoints/update-000001.frame").read_bytes())
    assert update.dtype == down
    [row] = rows(tmp_path / "run/rounds.jsonl")
    assert row["uplink_payload_bytes"] == 3 * formula_bytes(up, uplink_template(build_experiment(config)))


@pytest.mark.parametrize("dtype", ["int8", "int4", "drive", "topk"])
def test_the_bytes_given_for_full_fine_tuning_are_those_it_really_sends_under_the_codec(
    dtype: str, tmp_path: Path
) -> None:
    config = tiny(run__rounds=1, codec__up=dtype, codec__down=dtype, **SHARE.get(dtype, {}), **METHODS["full"])
    run(config, tmp_path / "full", Watch())
    [row] = rows(tmp_path / "full/rounds.jsonl")
    said = full_messages(build_experiment(tiny()), config.codec)
    assert row["uplink_message_bytes"] == 3 * said.up.message_bytes == row["full_uplink_message_bytes"]
    assert row["downlink_message_bytes"] == row["full_downlink_message_bytes"]


def test_full_fine_tunings_messages_are_built_once_in_a_process_for_what_decides_their_sizes() -> None:
    config = tiny(codec__up="topk", codec__topk__share=0.1)
    said = full_messages(build_experiment(config), config.codec)
    assert full_messages(build_experiment(tiny(run__seed=1, adapter__rank=1)), config.codec) is said
    for changes in ({"codec__topk__share": 0.2}, {"width": 8}, {"batch_norm__mode": "shared"}):
        other = tiny(**{"codec__up": "topk", "codec__topk__share": 0.1} | changes)
        assert full_messages(build_experiment(other), other.codec).up != said.up


@pytest.mark.parametrize("dtype", ["int4", "drive"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(dtype: str, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tiny(run__rounds=1, run__seed=seed, codec__up=dtype, codec__down=dtype), tmp_path / name, Watch())
    a, b, c = ((tmp_path / name / "adapter.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.slow
def test_workers_change_no_byte_of_rounded_frames(tmp_path: Path) -> None:
    settings = {"codec__up": "int4", "codec__down": "drive", "codec__error_feedback": "true", **METHODS["full"]}
    workers = {"one": {}, "processes": {"run__workers": 2}, "threads": {"run__workers": 2, "run__pool": "threads"}}
    for name, asked in workers.items():
        run(tiny(block_size=2, **settings, **asked), tmp_path / name, Watch())
    for file in ("adapter.safetensors", "model.safetensors", "cameras.jsonl"):
        assert len({(tmp_path / name / file).read_bytes() for name in workers}) == 1, file
    assert len({json.loads((tmp_path / w / "summary.json").read_text())["adapted_accuracy"] for w in workers}) == 1


@pytest.mark.parametrize("dtype", ["int4", "topk"])
def test_entropy_coding_moves_no_value_of_a_run_and_is_billed(dtype: str, tmp_path: Path) -> None:
    found = {}
    for on in (False, True):
        config = tiny(run__rounds=1, codec__up=dtype, codec__down=dtype, codec__entropy_coding=on, **METHODS["full"])
        run(config, tmp_path / f"{on}", Watch())
        found[on] = rows(tmp_path / f"{on}/rounds.jsonl")[0], load_file(tmp_path / f"{on}/model.safetensors")
    (plain, model), (coded, other) = found[False], found[True]
    assert all(torch.equal(model[name], other[name]) for name in model)
    for way in ("uplink", "downlink"):
        for what in ("payload", "frame", "message"):
            assert coded[f"{way}_{what}_bytes"] < plain[f"{way}_{what}_bytes"]
        assert coded[f"full_{way}_message_bytes"] == plain[f"full_{way}_message_bytes"]
