"""Laws of error feedback: nothing is lost, only late; what is owed stays bounded, and outlives a kill."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from flwr.app import RecordDict
from frames import BASE
from small_runs import rounds_run, rows, tiny
from torch import Tensor

from fed_lorac.client.agreement import uplink_template
from fed_lorac.client.app import make_client_app
from fed_lorac.client.state import ClientState
from fed_lorac.config import Config
from fed_lorac.config.compatibility import fixed_basis
from fed_lorac.errors import ConfigError
from fed_lorac.experiment.build import build_experiment
from fed_lorac.grid.in_process import in_process
from fed_lorac.reporting.watch import Watch
from fed_lorac.runtime.flower_private import record_of, task_identity
from fed_lorac.seeds import stream
from fed_lorac.simulation.engines import run
from fed_lorac.wire.feedback import encode_with_feedback
from fed_lorac.wire.frame import decode, encode

LOSSY = ["bf16", "int8", "int4", "int2", "ternary", "drive", "topk"]
FULL = {"adapter__method": "full", "strategy__name": "fedavg", "local__lr": 0.02}

# The sum of what arrives


def sent(dtype: str, rounds: int, *, feedback: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """(all that was meant, all that arrived) after each round: a steady change under noise, as training makes it."""
    steady = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    steady[:, 8:] *= 0.05
    lost: dict[str, Tensor] = {}
    meant, arrived = torch.zeros(20, 16, dtype=torch.float64), torch.zeros(20, 16, dtype=torch.float64)
    for number in range(rounds):
        noise = stream(1, "noise", number).standard_normal((20, 16)) * 0.3
        state = {"w": steady + torch.from_numpy(noise).float()}
        rng, settings = stream(2, "codec", number), {"dtype": dtype, "base": BASE, "topk_share": 0.1}
        if feedback:
            frame, lost = encode_with_feedback(state, lost, rng=rng, **settings)  # type: ignore[arg-type]
        else:
            frame = encode(state, rng=rng, **settings)  # type: ignore[arg-type]
        meant, arrived = meant + state["w"], arrived + decode(frame, base=BASE)["w"]
        yield meant, arrived


@pytest.mark.parametrize("dtype", LOSSY)
def test_the_residual_stays_bounded(dtype: str) -> None:
    owed = [float((meant - arrived).norm()) for meant, arrived in sent(dtype, 120, feedback=True)]
    assert max(owed[60:]) < 1.5 * max(owed[:60])


@pytest.mark.parametrize(("dtype", "growth"), [("topk", 1.8), ("drive", 1.2), ("int4", 1.2)])
def test_without_feedback_it_grows(dtype: str, growth: float) -> None:
    """In step with the rounds where the codec is biased, with their root where it is not."""
    owed = [float((meant - arrived).norm()) for meant, arrived in sent(dtype, 120, feedback=False)]
    assert np.mean(owed[110:]) > growth * np.mean(owed[50:60])


@pytest.mark.parametrize("dtype", LOSSY)
def test_the_sums_differ_by_the_last_residual(dtype: str) -> None:
    lost: dict[str, Tensor] = {}
    total = torch.zeros(3, 40)
    states = [{"w": torch.randn(3, 40, generator=torch.Generator().manual_seed(n))} for n in range(10)]
    for number, state in enumerate(states):
        rng = stream(0, "codec", number)
        frame, lost = encode_with_feedback(state, lost, dtype=dtype, base=BASE, rng=rng, topk_share=0.2)
        total += decode(frame, base=BASE)["w"]
    assert torch.allclose(total + lost["w"], torch.stack([s["w"] for s in states]).sum(0), atol=1e-5)
    assert float(lost["w"].norm()) > 0


# Where it has a meaning


@pytest.mark.parametrize(
    ("flat", "why"),
    [
        ({"codec.up": "topk"}, "basis stays"),
        (
            {"codec.up": "topk", "adapter.method": "lora-c", "strategy.merged.downlink": "dense"},
            "basis is drawn anew each round",
        ),
        ({"codec.up": "int8", "adapter.method": "ffa-lora-c", "strategy.name": "rotating-basis"}, "is drawn anew"),
        ({"adapter.method": "full", "strategy.name": "fedavg"}, "a codec that loses something"),
        ({"strategy.name": "factor-fedavg", "codec.up": "fp32"}, "a codec that loses something"),
    ],
)
def test_error_feedback_where_it_has_no_meaning_is_refused_with_the_reason(flat: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config.from_flat({**flat, "codec.error_feedback": True})
    Config.from_flat({**flat, "codec.error_feedback": False})


@pytest.mark.parametrize(
    "flat",
    [
        {"adapter.method": "full", "strategy.name": "fedavg", "codec.up": "topk"},
        {"strategy.name": "factor-fedavg", "codec.up": "drive"},
    ],
)
def test_a_fixed_basis_may_have_feedback(flat: dict[str, object]) -> None:
    assert fixed_basis(Config.from_flat({**flat, "codec.error_feedback": True}))


# In a camera's memory


def owed(folder: Path, newest: int = 0) -> dict[int, dict[str, Tensor]]:
    """Node -> what its codec left out, by the newest checkpoint, or the one before."""
    path = sorted((folder / "checkpoints").glob("round-*.safetensors"))[-1 - newest]
    states = safetensors.torch.load_file(path)
    records = {int(name.split()[1]): record_of(t.numpy().tobytes()) for name, t in states.items() if "node " in name}
    return {node: dict(ClientState.read(record).residual) for node, record in records.items()}


def test_a_camera_keeps_its_residual_until_it_has_a_new_one() -> None:
    statistics, residual = {"bn.running_mean": torch.ones(3)}, {"w": torch.full((2, 2), 0.5)}
    first = ClientState(3).with_statistics(statistics).with_residual(residual).write()
    kept = ClientState.read(first).after(RecordDict(), 4)
    assert kept.folded_round == 4 and torch.equal(kept.residual["w"], residual["w"])
    assert torch.equal(kept.statistics["bn.running_mean"], torch.ones(3))
    evaluated = ClientState.read(kept.with_statistics({"bn.running_mean": torch.zeros(3)}).write())
    assert torch.equal(evaluated.residual["w"], residual["w"]) and not evaluated.statistics["bn.running_mean"].any()
    assert list(first) == ["memory", "statistics", "lost"]  # the records' names, which checkpoints have
    assert list(kept.with_statistics({}).with_residual({}).write()) == ["memory"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [FULL, {"strategy__name": "factor-fedavg"}], ids=["full", "factors"])
def test_feedback_survives_an_interruption_and_changes_what_is_learnt(tmp_path: Path, settings: dict[str, object]):
    from interrupted import Ended, check_equal

    config = tiny(run__rounds=2, codec__up="topk", codec__error_feedback="true", block_size=2, **settings)
    run(config, tmp_path / "whole", Watch())
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "cut", Ended(1))
    template = uplink_template(build_experiment(config))
    for lost in (some for some in owed(tmp_path / "cut").values() if some):
        assert {name: tuple(t.shape) for name, t in lost.items()} == template
        assert sum(float(t.norm()) for t in lost.values()) > 0
    run(config, tmp_path / "cut", Watch(), resume=True)
    check_equal(tmp_path / "cut", tmp_path / "whole")
    run(tiny(run__rounds=2, codec__up="topk", block_size=2, **settings), tmp_path / "without", Watch())
    assert not any(owed(tmp_path / "without").values())
    assert (tmp_path / "whole/model.safetensors").read_bytes() != (tmp_path / "without/model.safetensors").read_bytes()


def test_a_camera_whose_reply_is_lost_keeps_its_residual(tmp_path: Path):
    config = tiny(
        run__rounds=4, run__seed=5, fleet__devices="limited", dropout=0.4, fleet__per_round=4, strategy__quorum=0.0,
        codec__up="topk", codec__error_feedback="true", **FULL,
    )  # fmt: skip
    run(config, tmp_path / "run", Watch())
    before, after = owed(tmp_path / "run", 1), owed(tmp_path / "run")
    last = [row for row in rows(tmp_path / "run/cameras.jsonl") if row["round"] == 4]
    dropped = {row["camera"] for row in last if row["reason"] == "dropped out"}
    assert 0 < len(dropped) < 4
    for node, lost in after.items():
        same = lost.keys() == before[node].keys() and all(torch.equal(t, before[node][n]) for n, t in lost.items())
        assert same == (node - 1000 in dropped)


def test_flowers_client_app_keeps_its_residual_as_our_fleet_does(tmp_path: Path):
    config = tiny(
        run__rounds=2, fleet__per_round=4, block_size=1, codec__up="topk", codec__error_feedback="true", **FULL
    )
    run(config, tmp_path / "fleet", Watch())
    grid = in_process(make_client_app(config), config.fleet.cameras)
    with task_identity():
        rounds_run(grid, config, tmp_path / "flower")
    for file in ("adapter.safetensors", "cameras.safetensors"):
        assert (tmp_path / "fleet" / file).read_bytes() == (tmp_path / "flower" / file).read_bytes(), file
    assert all(ClientState.read(state).residual for state in grid.states.values())


def test_a_residual_that_a_camera_keeps_is_not_billed(tmp_path: Path):
    for feedback in (True, False):
        config = tiny(run__rounds=1, codec__up="int4", codec__error_feedback=str(feedback).lower(), **FULL)
        run(config, tmp_path / str(feedback), Watch())
    a, b = (json.loads((tmp_path / str(f) / "rounds.jsonl").read_text()) for f in (True, False))
    assert a["uplink_message_bytes"] == b["uplink_message_bytes"]
