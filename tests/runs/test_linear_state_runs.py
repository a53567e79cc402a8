"""Whole runs of states that deltas are linear in: what the updates say is the mean of the cameras' deltas.

The other route: NumPy in float64, from the frames, with what is frozen drawn by hand.
"""

from pathlib import Path

import numpy as np
import pytest
from overheard import Overheard, overheard
from safetensors.torch import load_file
from small_runs import rows, tiny
from test_linear_states import CONVS, SCALE, Dense, by_hand, mean, off

from fed_lorac.experiment.build import build_experiment
from fed_lorac.wire.frame import decode
from fed_lorac.wire.updates import global_fingerprint

# Rank setting 1, R = K rows, three rounds.
RUN: dict[str, object] = {
    "adapter__rank": 1,
    "adapter__alpha": SCALE,
    "run__rounds": 3,
    "fleet__images": 25,
    "fleet__eval_images": 20,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Overheard]]:
    """Folder and messages of three ways to send the same, and of LoRA-C."""
    folder = tmp_path_factory.mktemp("linear")
    ways: dict[str, dict[str, object]] = {
        "plain": {"adapter__method": "ffa-lora-c", "strategy__name": "fedavg"},
        "merged": {"adapter__method": "ffa-lora-c", "strategy__name": "merged", "downlink": "dense"},
        "rotating-basis": {"strategy__name": "rotating-basis"},
        "lora-c": {"run__rounds": 1},
    }
    return {name: (folder / name, overheard(tiny(**(RUN | way)), folder / name)) for name, way in ways.items()}


def base_of_run() -> str:
    return build_experiment(tiny(**RUN)).base.fingerprint


def frames_said(heard: Overheard, *, rotates: bool) -> list[Dense]:
    """What the updates of a run say, with the run's A drawn by hand."""
    found, before = [], 0
    for round, frame in sorted(heard.updates().items()):
        state = decode(frame, base=global_fingerprint(base_of_run(), before), templates=heard.templates)
        found.append(by_hand("ffa-lora-c", state, round if rotates else 0, rank=1, seed=0))
        before = round
    return found


@pytest.mark.parametrize("name", ["plain", "rotating-basis"])
def test_a_runs_updates_say_the_mean_of_its_cameras_frames(runs: dict[str, tuple[Path, Overheard]], name: str) -> None:
    folder, heard = runs[name]
    rotates = name == "rotating-basis"
    updates = frames_said(heard, rotates=rotates)
    for round, update in enumerate(updates, 1):
        states = heard.states(round, global_fingerprint(base_of_run(), round - 1))
        changes = [by_hand("ffa-lora-c", s, round if rotates else 0, rank=1, seed=0) for _, s, _ in states]
        assert len(states) == 3 and off(update, mean(changes, [w for _, _, w in states])) < 1e-6
    assert all(row["aggregation_error"] < 1e-6 for row in rows(folder / "rounds.jsonl"))
    adapter = load_file(folder / "adapter.safetensors")
    total = mean(updates, [1.0] * len(updates))
    for name_, change in total.items():
        stem = name_.removesuffix(".weight")
        pair = f"{stem}.A" in adapter
        found = adapter[f"{stem}.B"] @ adapter[f"{stem}.A"] if pair else adapter[name_]
        assert np.allclose(found.numpy().reshape(change.shape), change, atol=1e-6 * np.linalg.norm(change))


def test_a_run_by_plain_ends_where_the_one_by_merged_does(runs: dict[str, tuple[Path, Overheard]]) -> None:
    base = {
        name: t.numpy().astype(np.float64) for name, t in build_experiment(tiny(**RUN)).base.model.state_dict().items()
    }
    ends = [load_file(runs[name][0] / "model.safetensors") for name in ("plain", "merged")]
    moved = [
        {name: end[name].numpy() - value for name, value in base.items() if name.endswith("weight")} for end in ends
    ]
    assert off(moved[0], moved[1]) < 1e-3  # three rounds of training take rounding further


def test_a_rotating_basis_gains_rank_in_every_round_and_a_fixed_one_does_not(
    runs: dict[str, tuple[Path, Overheard]],
) -> None:
    for name, grows in (("rotating-basis", True), ("plain", False)):
        updates = frames_said(runs[name][1], rotates=grows)
        for conv, weight in CONVS.items():
            out, in_, k, _ = weight.shape
            for round in (1, 2, 3):
                total = mean(updates[:round], [1.0] * round)[f"{conv}.weight"].reshape(out * k, in_ * k)
                expected = min(k * (round if grows else 1), out * k, in_ * k)
                assert np.linalg.matrix_rank(total) == expected, (name, conv, round)


def test_the_ledger_bills_the_formulas_share(runs: dict[str, tuple[Path, Overheard]]) -> None:
    """Up and down: both ends send the same tensors."""
    ours, theirs = (rows(runs[name][0] / "rounds.jsonl")[0] for name in ("rotating-basis", "lora-c"))
    sides = [(out * k, in_ * k, k) for out, in_, k, _ in (w.shape for w in CONVS.values())]
    ends = 4 * 3 * 9 + 10 * 16
    b, both = sum(rows_ * R for rows_, _, R in sides) + ends, sum((r + c) * R for r, c, R in sides) + ends
    assert ours["uplink_payload_bytes"] == 3 * 4 * b and theirs["uplink_payload_bytes"] == 3 * 4 * both
    assert ours["downlink_payload_bytes"] == 4 * 4 * b  # all four cameras are told
